# A daemon that restarts finds its containers and restarts none, on the leader too.
nodes 3
apply web replicas=3
settle
show containers
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
web/1   n1  runs as container 2
web/2   n2  runs as container 2
web/3   n3  runs as container 2

restart n2
restart leader
settle
show nodes
show containers
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
n1      Ready
n2      Ready
n3      Ready
web/1   n1  runs as container 2
web/2   n2  runs as container 2
web/3   n3  runs as container 2

restart all
settle
show containers
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
web/1   n1  runs as container 2
web/2   n2  runs as container 2
web/3   n3  runs as container 2
