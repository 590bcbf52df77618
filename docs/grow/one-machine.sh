set -eu
python3 -m venv two && two/bin/pip install --quiet '.[metrics,redis]'
export RAPIDA_API_KEY=a-key-for-trying STORE__URL=redis://127.0.0.1:6390
redis-server --port 6390 --bind 127.0.0.1 --save '' --daemonize yes --pidfile "$PWD/two/redis.pid"
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
    -keyout two/key.pem -out two/chain.pem 2>/dev/null
cat two/chain.pem two/key.pem >two/both.pem
for node in 1 2; do
    two/bin/twistd --pidfile "two/node$node.pid" --logfile "two/node$node.log" rapida-media --state-dir "two/node$node" \
        --http-endpoint "haproxy:tcp:808$node:interface=127.0.0.1" --https "ssl:844$node:privateKey=two/key.pem:certKey=two/chain.pem" \
        --audiosocket-endpoint "haproxy:tcp:457$node:interface=127.0.0.1" --proxy-allow 127.0.0.1/32 --admin-port "809$node" \
        --assistant '*=echo'
done
export RUN_AS="$(id -un)" RUN_AS_GROUP="$(id -gn)" MAXCONN=1000 ADMIN_SOCKET="$PWD/two/haproxy.sock" CERTIFICATE="$PWD/two/both.pem"
export HTTPS_BIND=127.0.0.1:8440 HTTP_BIND=127.0.0.1:8080 WSS_BIND=127.0.0.1:8443 AUDIOSOCKET_BIND=127.0.0.1:4570
export ONE_HTTP=127.0.0.1:8081 ONE_WSS=127.0.0.1:8441 ONE_AUDIOSOCKET=127.0.0.1:4571
export TWO_HTTP=127.0.0.1:8082 TWO_WSS=127.0.0.1:8442 TWO_AUDIOSOCKET=127.0.0.1:4572
haproxy -D -p two/haproxy.pid -f docs/grow/haproxy.cfg
sleep 3
for call in 1 2; do
    two/bin/rapida-phone --http http://127.0.0.1:8080 --audiosocket 127.0.0.1:4570 --tone 440 --duration 3
done
grep -c 'up over' two/node1.log two/node2.log
for node in 1 2; do
    curl --silent --fail "http://127.0.0.1:809$node/readyz"
    curl --silent --fail --header "x-api-key: $RAPIDA_API_KEY" "http://127.0.0.1:809$node/metrics" | grep '^rapida_calls_started'
done
