# A container whose config map is missing waits and says why. When the map appears it starts, in the same pod.
nodes 3
apply web config=settings
run 5s
----
web/1   n1  CreateContainerConfigError: configmap "settings" not found

configmap settings mode=fast
settle
----
web/1   n1  Ready
