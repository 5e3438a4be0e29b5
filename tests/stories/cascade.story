# Deleting a deployment deletes its replicasets and pods, and nobody else's.
nodes 3
apply web replicas=3
apply api
settle
----
api/1   n1  Ready
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready

behave app:1 stop=5s # for those that start from now on
apply late
settle
----
api/1   n1  Ready
late/1  n2  Ready
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready

delete deployment web
delete deployment late
run 2s
----
api/1   n1  Ready
late/1  n2  Terminating

settle
show containers
----
api/1   n1  Ready
api/1   n1  runs as container 4
