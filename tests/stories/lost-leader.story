# The leader dies: writes go on, its pods run elsewhere, and when it returns nothing moves back.
nodes 3
apply web replicas=3
settle
kill leader
run 3s
apply api
run 10s
show nodes
----
api/1   n1  Terminating
api/2   n2  Ready
web/1   n1  Terminating
web/2   n2  Ready
web/3   n3  Ready
web/4   n3  Ready
n1      Unknown
n2      Ready
n3      Ready

start it
settle
show nodes
----
api/2   n2  Ready
web/2   n2  Ready
web/3   n3  Ready
web/4   n3  Ready
n1      Ready
n2      Ready
n3      Ready
