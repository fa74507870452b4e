#!/bin/sh
# Run by LocalStack once it is ready. Four shards, as `banyan dev` makes them.
set -e
for stream in domain-events order-commands; do
  awslocal kinesis create-stream --stream-name "$stream" --shard-count 4
  awslocal kinesis wait stream-exists --stream-name "$stream"
done
