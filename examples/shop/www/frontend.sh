#!/bin/sh
# The shop's page: a greeting from the ConfigMap, and what the other two services say, each found by its name.
printf 'Content-Type: text/plain\r\n\r\n'
cat /etc/shop/greeting
echo "auth:  $(fetch auth.default.svc.cluster.local || echo 'does not answer')"
echo "hello: $(fetch hello.default.svc.cluster.local || echo 'does not answer')"
