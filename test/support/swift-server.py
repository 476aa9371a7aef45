#!/usr/bin/python3
"""A real S3-compatible server for tests: OpenStack Swift with its S3 API, one process, one replica, loopback only.

usage: swift-server.py DATA_DIR ACCOUNT:USER SECRET
The S3 access key is ACCOUNT:USER, the secret key SECRET. Needs Debian's python3-swift and a file system with xattrs.
Takes free ports, prints the one of the S3 API once it serves, and stops on SIGTERM or when its standard input ends
(so it never outlives the process that started it). Data stay in DATA_DIR.
"""
import eventlet

eventlet.monkey_patch(os=False)

import getpass
import os
import signal
import sys

from eventlet import listen, tpool, wsgi
from swift.common.ring import RingBuilder
from swift.common.utils import NullLogger, set_swift_dir

data_dir, access_key, secret = sys.argv[1:4]
account, user = access_key.split(":")
conf_dir, devices = os.path.join(data_dir, "conf"), os.path.join(data_dir, "srv")
os.makedirs(os.path.join(devices, "d1"), exist_ok=True)
os.makedirs(conf_dir, exist_ok=True)


def write(name, text):
    with open(os.path.join(conf_dir, name), "w") as file:
        file.write(text)


def listen_on_free_port():
    return listen(("127.0.0.1", 0), backlog=256)


write("swift.conf", "[swift-hash]\nswift_hash_path_suffix = s\nswift_hash_path_prefix = p\n"
                    "[swift-constraints]\nmax_header_size = 16384\n")
set_swift_dir(conf_dir)

# Imported only now: Swift reads swift.conf while its WSGI module loads.
from swift.common.wsgi import SwiftHttpProtocol, loadapp

# All four servers share this thread, and nothing repairs listings later: a PUT waits until its container knows of it.
patience = "".join(f"{wait} = 60\n" for wait in ("conn_timeout", "node_timeout", "container_update_timeout"))
defaults = (f"[DEFAULT]\nswift_dir = {conf_dir}\ndevices = {devices}\nmount_check = false\nfallocate_reserve = 0\n"
            f"{patience}log_level = WARNING\nbind_ip = 127.0.0.1\nuser = {getpass.getuser()}\nlog_address = /nonexistent\n")

sockets = {name: listen_on_free_port() for name in ("object", "container", "account", "proxy")}
for name in ("object", "container", "account"):
    port = sockets[name].getsockname()[1]
    ring = RingBuilder(3, 1, 0)  # 2^3 partitions, 1 replica
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1", "port": port, "device": "d1",
                  "replication_ip": "127.0.0.1", "replication_port": port, "meta": ""})
    ring.rebalance()
    ring.get_ring().save(f"{conf_dir}/{name}.ring.gz")
    write(f"{name}.conf", defaults + f"[pipeline:main]\npipeline = app\n[app:app]\nuse = egg:swift#{name}\n")

# The S3 API insists on the name proxy-server and on a cache filter; nothing listens on the cache's port.
filters = {
    "catch_errors": "", "gatekeeper": "", "cache": "use = egg:swift#memcache\nmemcache_servers = 127.0.0.1:9\n",
    "listing_formats": "", "bulk": "", "s3api": "location = us-east-1\ns3_acl = false\nallow_multipart_uploads = true\n",
    "tempauth": f"user_{account}_{user} = {secret} .admin\n", "copy": "", "slo": "", "dlo": "",
}
proxy = defaults + f"[pipeline:main]\npipeline = {' '.join(filters)} proxy-server\n"
proxy += "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\nallow_account_management = true\n"
for name, settings in filters.items():
    proxy += f"[filter:{name}]\n" + (settings if "use =" in settings else f"use = egg:swift#{name}\n{settings}")
write("proxy.conf", proxy)

for name, socket in sockets.items():
    app = loadapp(f"{conf_dir}/{name}.conf", global_conf={"log_requests": "false"})
    eventlet.spawn(wsgi.server, socket, app, NullLogger(), protocol=SwiftHttpProtocol,
                   custom_pool=eventlet.GreenPool(256), capitalize_response_headers=False)

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print(sockets["proxy"].getsockname()[1], flush=True)
tpool.execute(sys.stdin.buffer.raw.read)
os._exit(0)
