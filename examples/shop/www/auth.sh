#!/bin/sh
# Lets everybody in.
printf 'Content-Type: text/plain\r\n\r\n'
echo "welcome, guest"
