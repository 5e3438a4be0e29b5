# A pod on a node that is not heard says why it is as it is, and what becomes of it. When the node is heard again, nothing of that is left.
nodes 3
apply web replicas=3
settle
cut n3
run 8s
show nodes
show reasons
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Terminating
web/4   n1  Ready
n1      Ready
n2      Ready
n3      Unknown
web/3   n3  NodeLost: n3 not heard for 6s: if it is still wanted the pod is replaced elsewhere; this one ends when n3 returns or is deleted

heal n3
settle
show nodes
show reasons
----
web/1   n1  Ready
web/2   n2  Ready
web/4   n1  Ready
n1      Ready
n2      Ready
n3      Ready
