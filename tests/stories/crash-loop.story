# A container that ends at once is restarted after ever longer waits, says so, and harms nobody else. A new image ends it.
nodes 3
behave app:bad exits=1 after=1s
apply web replicas=2
apply bad image=app:bad
run 6s
----
bad/1   n3  CrashLoopBackOff: back-off 10s restarting failed container=app pod=bad/1_default(…)
web/1   n1  Ready
web/2   n2  Ready

run 60s
----
bad/1   n3  CrashLoopBackOff: back-off 40s restarting failed container=app pod=bad/1_default(…)
web/1   n1  Ready
web/2   n2  Ready

apply bad image=app:good
settle
----
bad/2   n1  Ready
web/1   n1  Ready
web/2   n2  Ready
