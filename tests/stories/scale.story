# More replicas are made where there is most room; fewer replicas leave the most crowded nodes first.
nodes 3
apply web replicas=2
settle
----
web/1   n1  Ready
web/2   n2  Ready

scale web 5
settle
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
web/4   n1  Ready
web/5   n2  Ready

scale web 1
settle
----
web/3   n3  Ready

scale web 0
settle
----



