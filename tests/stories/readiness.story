# A pod that is not ready gets no connections; when it is ready again it does. It is not restarted, and not replaced.
nodes 3
service web
service slow
apply web replicas=3 probe=readiness
apply slow probe=readiness image=slow:1
settle
show services
show containers
----
slow/1  n1  Ready
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
service slow → slow/1
service web → web/1 web/2 web/3
slow/1  n1  runs as container 4
web/1   n1  runs as container 2
web/2   n2  runs as container 2
web/3   n3  runs as container 2

behave slow:1 unwell=no_database
settle
show services
----
slow/1  n1  Running, not ready
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
service slow → nobody
service web → web/1 web/2 web/3

behave slow:1
settle
show services
show containers
----
slow/1  n1  Ready
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
service slow → slow/1
service web → web/1 web/2 web/3
slow/1  n1  runs as container 4
web/1   n1  runs as container 2
web/2   n2  runs as container 2
web/3   n3  runs as container 2
