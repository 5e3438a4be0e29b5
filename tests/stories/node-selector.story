# A pod that selects a node which is not there waits and says so; the others are not held up by it.
nodes 3
apply here on=n2 replicas=2
apply nowhere on=n9
apply web replicas=3
settle
----
here/1     n2  Ready
here/2     n2  Ready
nowhere/1  -   Pending: 0 of 3 nodes fit: 3 not matching nodeSelector
web/1      n1  Ready
web/2      n3  Ready
web/3      n2  Ready
