# A node that never returns is deleted, and the pods that nobody could know the end of with it. A node that lives is not deleted.
nodes 3
apply web replicas=3
settle
kill n3
run 10s
show nodes
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Terminating
web/4   n1  Ready
n1      Ready
n2      Ready
n3      Unknown

delete node n2
delete node n3
settle
show nodes
----
error: node/n2 was not deleted
  because: the node is Ready: it would run on without being known
  hint: to have it leave: `quorate leave n2`; if it is gone for good, stop its daemon first
web/1   n1  Ready
web/2   n2  Ready
web/4   n1  Ready
n1      Ready
n2      Ready
