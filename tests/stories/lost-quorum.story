# Two of three nodes vanish: without a quorum nothing is decided and nothing is evicted, the last node runs on what it has, and a write
# is refused instead of being forgotten. When they are back, all is as before.
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

cut n2
cut n3
run 30s
apply api
show containers
----
error: nothing was written
  because: no quorum: the newest state cannot be confirmed
  hint: try again, and see `quorate status` for who can be reached
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
web/1   n1  runs as container 2
web/2   n2  runs as container 2
web/3   n3  runs as container 2

heal n2
heal n3
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
