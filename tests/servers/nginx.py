"""A real nginx as a mail proxy, in front of a Dovecot that lets people in, or doesn't."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.servers.dovecot import Dovecot
from tests.servers.machine import Machine
from tests.servers.namespace import SERVER_IPV4, SERVER_IPV6
from tests.servers.server import Server

# Its own web server tells where to go, whoever it is: Dovecot checks the password.
_CONFIGURATION = """\
load_module /usr/lib/nginx/modules/ngx_mail_module.so;
daemon off;
pid /run/nginx.pid;
error_log syslog:server=unix:/dev/log,nohostname info;
error_log {folder}/error.log info;
events {{ }}
http {{
  access_log off;
  map $http_auth_protocol $port {{ pop3 110; imap 143; }}
  server {{
    listen 127.0.0.1:8080;
    location / {{
      add_header Auth-Status OK;
      add_header Auth-Server {server};
      add_header Auth-Port $port;
      return 200;
    }}
  }}
}}
mail {{
  auth_http 127.0.0.1:8080;
  proxy_pass_error_message on;
  pop3_auth plain;
  imap_auth login plain;
  server {{ listen {server}:1110; listen [{server6}]:1110; protocol pop3; }}
  server {{ listen {server}:1143; listen [{server6}]:1143; protocol imap; }}
}}
"""


class Nginx(Server):
    """Dovecot's users are its users, and Dovecot's lines name the proxy's address."""

    NAME = "nginx-mail"
    PACKAGES = ("nginx", "libnginx-mod-mail", *Dovecot.PACKAGES)
    pop3 = 1110
    imap = 1143

    def __init__(self, machine: Machine, folder: Path) -> None:
        """As for any server, with a Dovecot behind it."""
        super().__init__(machine, folder)
        self.dovecot = Dovecot(machine, folder)
        self.users = self.dovecot.users

    def __enter__(self) -> Self:
        """Start Dovecot, then nginx."""
        with ExitStack() as stack:
            stack.enter_context(self.dovecot)
            super().__enter__()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """End both."""
        super().__exit__(*error)
        self.stack.close()

    def prepare(self) -> None:
        """Write its configuration, and make the folders that its package would have."""
        text = _CONFIGURATION.format(folder=self.folder, server=SERVER_IPV4, server6=SERVER_IPV6)
        (self.folder / "nginx.conf").write_text(text)
        self.shell("install -d /var/log/nginx /var/lib/nginx")

    def commands(self) -> Sequence[Sequence[str]]:
        """In the foreground."""
        return [["nginx", "-c", str(self.folder / "nginx.conf")]]
