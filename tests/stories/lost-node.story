# A node that falls silent loses its pods to the others. When it is heard again, its old copies stop, and nothing moves back.
nodes 3
apply web replicas=3
settle
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready

cut n3
run 8s
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Terminating
web/4   n1  Ready

heal n3
settle
----
web/1   n1  Ready
web/2   n2  Ready
web/4   n1  Ready
