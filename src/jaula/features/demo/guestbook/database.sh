#!/bin/sh
# Create the database cluster if the volume is empty, and serve it to the network.
set -eu
PATH=/usr/lib/postgresql/bin:$PATH
if [ ! -e /data/PG_VERSION ]; then
    initdb --pgdata=/data --username=guestbook --auth=trust --no-instructions
    echo 'host all guestbook all trust' >> /data/pg_hba.conf
fi
exec postgres -D /data -c listen_addresses='*' -c unix_socket_directories=/tmp
