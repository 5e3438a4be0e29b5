# A cordoned node keeps what it runs and gets nothing new, until it is uncordoned.
nodes 3
apply web replicas=3
settle
cordon n2
scale web 5
settle
show nodes
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
web/4   n1  Ready
web/5   n3  Ready
n1      Ready
n2      Ready,cordoned
n3      Ready

uncordon n2
scale web 7
settle
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
web/4   n1  Ready
web/5   n3  Ready
web/6   n2  Ready
web/7   n1  Ready
