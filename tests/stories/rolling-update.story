# A new image replaces pods step by step: new ones are ready before more old ones go, and never are fewer than three of four ready.
nodes 3
behave app:2 start=2s
apply web replicas=4 image=app:1
settle
never web below 3
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
web/4   n1  Ready

apply web replicas=4 image=app:2
run 1s
----
web/2   n2  Ready
web/3   n3  Ready
web/4   n1  Ready
web/5   n2  ContainerCreating
web/6   n3  ContainerCreating

run 2s
----
web/4   n1  Ready
web/5   n2  Ready
web/6   n3  Ready
web/7   n1  ContainerCreating
web/8   n1  ContainerCreating

settle
----
web/5   n2  Ready
web/6   n3  Ready
web/7   n1  Ready
web/8   n1  Ready
