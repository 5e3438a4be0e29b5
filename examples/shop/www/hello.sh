#!/bin/sh
# Says which pod answered: a pod's host name is its own name.
printf 'Content-Type: text/plain\r\n\r\n'
echo "hello from $(hostname)"
