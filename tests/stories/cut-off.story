# A node that is cut off keeps its pods running, although the others have replaced them: it cannot know. Reunited, it stops its copy.
nodes 3
apply web replicas=3
settle
cut n3
run 60s
show containers
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Terminating
web/4   n1  Ready
web/1   n1  runs as container 2
web/2   n2  runs as container 2
web/3   n3  runs as container 2
web/4   n1  runs as container 4

heal n3
settle
show containers
----
web/1   n1  Ready
web/2   n2  Ready
web/4   n1  Ready
web/1   n1  runs as container 2
web/2   n2  runs as container 2
web/4   n1  runs as container 4
