# The power fails everywhere at once, in the middle of a change: what was acknowledged is there afterwards and runs again.
nodes 3
apply web replicas=3
settle
scale web 5
apply api replicas=2
configmap settings mode=fast
kill all
run 60s
start all
settle
show nodes
show containers
----
api/1   n3  Ready
api/2   n1  Ready
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
web/4   n1  Ready
web/5   n2  Ready
n1      Ready
n2      Ready
n3      Ready
api/1   n3  runs as container 4
api/2   n1  runs as container 6
web/1   n1  runs as container 4
web/2   n2  runs as container 3
web/3   n3  runs as container 2
web/4   n1  runs as container 3
web/5   n2  runs as container 4
