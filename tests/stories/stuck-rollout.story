# A new version that never gets ready gets no connections, and the rollout waits for it; going back ends the rollout.
nodes 3
behave app:2 unwell=no_database
service web
apply web replicas=3 probe=readiness
settle
never web below 3
show services
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
service web → web/1 web/2 web/3

apply web replicas=3 probe=readiness image=app:2
settle
show services
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
web/4   n1  Running, not ready
service web → web/1 web/2 web/3

apply web replicas=3 probe=readiness image=app:1
settle
show services
----
web/1   n1  Ready
web/2   n2  Ready
web/3   n3  Ready
service web → web/1 web/2 web/3
