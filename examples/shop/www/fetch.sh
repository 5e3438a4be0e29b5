#!/bin/sh
# fetch NAME [PORT]: prints the page of a service, found by its name. Static busybox cannot look names up from `wget`, so it is done
# in two steps.
address=$(nslookup -type=a "$1" | sed -n 's/^Address: //p' | head -n 1)
[ -n "$address" ] || { echo "fetch: $1 has no address" >&2; exit 1; }
printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$1" | nc -w 3 "$address" "${2:-80}" >/tmp/answer.$$
sed '1,/^\r*$/d' /tmp/answer.$$
grep -q ' 200 ' /tmp/answer.$$
status=$?
rm -f /tmp/answer.$$
exit $status
