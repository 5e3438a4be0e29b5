# A pod that fits nowhere says why, for every node, and is placed as soon as there is room. A node has four cores.
nodes 3
cordon n3
apply big replicas=2 cpu=3
settle
----
big/1   n1  Ready
big/2   n2  Ready

apply more cpu=2
settle
----
big/1   n1  Ready
big/2   n2  Ready
more/1  -   Pending: 0 of 3 nodes fit: 1 cordoned, 2 short of cpu

scale big 1
settle
----
big/2   n2  Ready
more/1  n1  Ready
