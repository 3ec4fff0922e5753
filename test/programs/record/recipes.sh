# More mail programs, in the manner of ../recipes.sh, which stands before this.
# PROTO, SECURITY, HOST, PORT, ACCOUNT, PASSWORD, and the last two as URL_ACCOUNT and
# URL_PASSWORD.

imaptalk() {
	command perl -MMail::IMAPTalk -MIO::Socket::SSL -e '
		my $imap = Mail::IMAPTalk->new(Server => $ENV{HOST}, Port => $ENV{PORT}, UseSSL => 1,
			Username => $ENV{ACCOUNT}, Password => $ENV{PASSWORD}) or die "Cannot connect: $@\n";
		$imap->select("INBOX"); $imap->logout;'
}

net-imap-simple() {
	command perl -MNet::IMAP::Simple -e '
		my $imap = Net::IMAP::Simple->new("$ENV{HOST}:$ENV{PORT}", use_ssl => 1) or die "Cannot connect\n";
		$imap->login(@ENV{qw(ACCOUNT PASSWORD)}) or die "Cannot log in: ".$imap->errstr."\n";
		$imap->select("INBOX"); $imap->quit;'
}

net-imap-client() {
	command perl -MNet::IMAP::Client -e '
		my $imap = Net::IMAP::Client->new(server => $ENV{HOST}, port => $ENV{PORT}, ssl => 1,
			user => $ENV{ACCOUNT}, pass => $ENV{PASSWORD}) or die "Cannot connect\n";
		$imap->login or die "Cannot log in: ".$imap->last_error."\n";
		$imap->select("INBOX"); $imap->logout;'
}

pop3client() {
	command perl -MMail::POP3Client -e '
		my $pop = Mail::POP3Client->new(USER => $ENV{ACCOUNT}, PASSWORD => $ENV{PASSWORD}, HOST => $ENV{HOST},
			PORT => $ENV{PORT}, USESSL => 1,
			SSL_ca_file => "'"$roots"'", SSL_ca_path => "/etc/ssl/certs");
		print $pop->Count, "\n"; $pop->Close;'
}

mail-box() {
	command perl -MMail::Box::Manager -e '
		my $folder = Mail::Box::Manager->new->open(type => $ENV{PROTO} eq "imap" ? "imap4" : "pop3",
			server_name => $ENV{HOST}, server_port => $ENV{PORT}, username => $ENV{ACCOUNT}, password => $ENV{PASSWORD},
			folder => "INBOX", ssl => {}, use_ssl => 1, starttls => $ENV{SECURITY} eq "starttls") or die "Cannot open\n";
		print scalar($folder->messages), "\n"; $folder->close;'
}

imaplib2() {
	python3 -c '
import imaplib2, os
host, port = os.environ["HOST"], int(os.environ["PORT"])
if os.environ["SECURITY"] == "tls":
    imap = imaplib2.IMAP4_SSL(host, port)
else:
    imap = imaplib2.IMAP4(host, port)
    imap.starttls()
imap.login(os.environ["ACCOUNT"], os.environ["PASSWORD"])
imap.select()
imap.logout()'
}

imapclient() {
	python3 -c '
import imapclient, os
tls = os.environ["SECURITY"] == "tls"
imap = imapclient.IMAPClient(os.environ["HOST"], int(os.environ["PORT"]), ssl=tls)
if not tls:
    imap.starttls()
imap.login(os.environ["ACCOUNT"], os.environ["PASSWORD"])
imap.select_folder("INBOX")
imap.logout()'
}

imap-tools() {
	python3 -c '
import imap_tools, os
kind = imap_tools.MailBox if os.environ["SECURITY"] == "tls" else imap_tools.MailBoxTls
with kind(os.environ["HOST"], int(os.environ["PORT"])).login(os.environ["ACCOUNT"], os.environ["PASSWORD"]) as box:
    print(list(box.fetch()))'
}

aioimaplib() {
	python3 -c '
import aioimaplib, asyncio, os
async def main():
    imap = aioimaplib.IMAP4_SSL(os.environ["HOST"], int(os.environ["PORT"]))
    await imap.wait_hello_from_server()
    await imap.login(os.environ["ACCOUNT"], os.environ["PASSWORD"])
    await imap.select()
    await imap.logout()
asyncio.run(main())'
}

twisted() {
	python3 -c '
import os
from twisted.internet import defer, endpoints, protocol, reactor, ssl, task
from twisted.mail import imap4, pop3client
host, port, tls = os.environ["HOST"], int(os.environ["PORT"]), os.environ["SECURITY"] == "tls"
account, password = os.environ["ACCOUNT"].encode(), os.environ["PASSWORD"].encode()
options = ssl.optionsForClientTLS(host)
class IMAP(imap4.IMAP4Client):
    def __init__(self):
        super().__init__(options)
        self.registerAuthenticator(imap4.PLAINAuthenticator(account))
        self.ready = defer.Deferred()
    def serverGreeting(self, caps):
        self.ready.callback(self)
class POP3(pop3client.POP3Client):
    def __init__(self):
        super().__init__(options)
        self.ready = defer.Deferred()
    def serverGreeting(self, text):
        super().serverGreeting(text)
        self.ready.callback(self)
@defer.inlineCallbacks
def main(_):
    imap = os.environ["PROTO"] == "imap"
    end = endpoints.HostnameEndpoint(reactor, host, port)
    if tls:
        end = endpoints.wrapClientTLS(options, end)
    client = yield end.connect(protocol.Factory.forProtocol(IMAP if imap else POP3))
    yield client.ready
    if imap and os.environ.get("ACCOUNT") != "anna@example.org":
        yield client.authenticate(password)
    elif imap:
        if not tls:
            yield client.startTLS()
        yield client.login(account, password)
    else:
        yield client.login(account, password)
task.react(main)'
}

pullimap() {
	mkdir -p .config/pullimap .local/share/pullimap
	cat >.config/pullimap/config <<-END
		deliver-method = lmtp:[127.0.0.1]:24
		[a]
		type = $([ "$SECURITY" = tls ] && echo imaps || echo imap)
		host = $HOST
		port = $PORT
		username = $ACCOUNT
		password = $PASSWORD
		SSL_CAfile = $roots
	END
	chmod 600 .config/pullimap/config
	command pullimap --no-delivery a || command pullimap a
}

imapcopy() {
	cat >ImapCopy.cfg <<-END
		SourceServer $HOST
		SourcePort $PORT
		DestServer $HOST
		DestPort $PORT
		Copy "$ACCOUNT" "$PASSWORD" "$ACCOUNT" "$PASSWORD"
	END
	command imapcopy
}

horde() {
	# shellcheck disable=SC2016 # PHP
	command php -r '
		set_include_path("/usr/share/php");
		spl_autoload_register(function ($c) { @include str_replace(["_", "\\"], "/", $c).".php"; });
		$options = ["username" => getenv("ACCOUNT"), "password" => getenv("PASSWORD"), "hostspec" => getenv("HOST"),
			"port" => getenv("PORT"), "secure" => getenv("SECURITY") == "tls" ? "ssl" : "tls"];
		$client = getenv("PROTO") == "imap" ? new Horde_Imap_Client_Socket($options) : new Horde_Imap_Client_Socket_Pop3($options);
		$client->login(); $client->logout();'
}

net-imap() {
	# shellcheck disable=SC2016 # PHP
	command php -r '
		require "Net/IMAP.php";
		$imap = new Net_IMAP("ssl://".getenv("HOST"), (int)getenv("PORT"));
		var_dump($imap->login(getenv("ACCOUNT"), getenv("PASSWORD"), getenv("ACCOUNT") != "anna"));'
}

roundcube() {
	# shellcheck disable=SC2016 # PHP
	command php -d include_path=/usr/share/roundcube/program/lib/Roundcube:/usr/share/php -r '
		error_reporting(E_ERROR);
		foreach (["rcube_utils", "rcube_charset", "rcube_result_index", "rcube_imap_generic"] as $c) require_once "$c.php";
		$imap = new rcube_imap_generic();
		$tls = getenv("SECURITY") == "tls";
		var_dump($imap->connect(getenv("HOST"), getenv("ACCOUNT"), getenv("PASSWORD"),
			["port" => (int)getenv("PORT"), "ssl_mode" => $tls ? "ssl" : "tls", "timeout" => 5, "auth_type" => null, "force_caps" => false,
			 "ident" => ["name" => "Roundcube", "version" => "1"]]), $imap->error);
		$imap->closeConnection();'
}

phpmailer() {
	# shellcheck disable=SC2016 # PHP
	command php -r '
		require "/usr/share/php/libphp-phpmailer/autoload.php";
		$pop = new PHPMailer\PHPMailer\POP3();
		var_dump($pop->authorise("ssl://".getenv("HOST"), (int)getenv("PORT"), 5, getenv("ACCOUNT"), getenv("PASSWORD"), 1), $pop->getErrors());'
}

tcllib() {
	if [ "$PROTO" = imap ]; then
		cat >client.tcl <<-'END'
			package require tls
			package require imap4
			set imap4::use_ssl 1
			set f [::imap4::open $env(HOST) $env(PORT)]
			::imap4::login $f $env(ACCOUNT) $env(PASSWORD)
			::imap4::select $f INBOX
		END
	else
		cat >client.tcl <<-'END'
			package require tls
			package require pop3
			set tls [expr {$env(SECURITY) eq "tls"}]
			set f [pop3::open -socketcmd [expr {$tls ? "tls::socket" : "socket"}] -stls [expr {!$tls}] -tls-callback {} \
				$env(HOST) $env(ACCOUNT) $env(PASSWORD) $env(PORT)]
			puts [pop3::status $f]
			pop3::close $f
		END
	fi
	tclsh client.tcl
}

check() {
	local options=-S
	if [ "$SECURITY" = starttls ]; then options="-S -e ."; fi
	# shellcheck disable=SC2086 # none or several
	"/usr/lib/nagios/plugins/check_$PROTO" -H "$HOST" -p "$PORT" $options -v
}

imapc() {
	local ssl=imaps
	if [ "$SECURITY" = starttls ]; then ssl=starttls; fi
	cat >dovecot.conf <<-END
		base_dir = $HOME/run
		state_dir = $HOME/run
		log_path = /dev/stderr
		default_internal_user = anna
		default_login_user = anna
		default_internal_group = anna
		first_valid_uid = 8
		mail_uid = anna
		mail_gid = anna
		mail_home = $HOME/mail
		mail_location = imapc:$HOME/mail
		imapc_host = $(getent hosts "$HOST" | cut -d ' ' -f 1)
		imapc_ssl_verify = no
		imapc_port = $PORT
		imapc_user = $ACCOUNT
		imapc_password = $PASSWORD
		imapc_ssl = $ssl
		ssl_client_ca_file = $roots
	END
	doveadm -c dovecot.conf mailbox status messages INBOX
}

uw-mailutil() {
	local options=/tls
	if [ "$SECURITY" = tls ]; then options=/ssl; fi
	if [ "$PROTO" = pop3 ]; then options=/pop3$options; fi
	command mailutil check "{$HOST:$PORT$options/user=$ACCOUNT}INBOX"
}

imtest() {
	local options=-s
	if [ "$SECURITY" = starttls ]; then options="-t ''"; fi
	# shellcheck disable=SC2086 # none or several
	eval "$([ "$PROTO" = imap ] && echo /usr/lib/cyrus/bin/imtest || echo /usr/lib/cyrus/bin/pop3test) $options -p $PORT -u '$ACCOUNT' -a '$ACCOUNT' -w '$PASSWORD' $HOST"
}

inc() {
	mkdir -p Mail
	echo 'Path: Mail' >.mh_profile
	echo "machine $HOST login $ACCOUNT password $PASSWORD" >.netrc
	chmod 600 .netrc
	/usr/bin/mh/inc -host "$HOST" -port "$PORT" -user "$ACCOUNT" $([ "$SECURITY" = tls ] && echo -initialtls)
}

meli() {
	mkdir -p .config/meli
	cat >.config/meli/config.toml <<-END
		[accounts.a]
		root_mailbox = "INBOX"
		format = "imap"
		server_hostname = "$HOST"
		server_port = $PORT
		server_username = "$ACCOUNT"
		server_password = "$PASSWORD"
		use_starttls = $([ "$SECURITY" = tls ] && echo false || echo true)
		danger_accept_invalid_certs = true
		identity = "anna@example.org"
		send_mail = "false"
		subscribed_mailboxes = ["*"]
	END
	chmod 600 .config/meli/config.toml
	command meli
}

himalaya() {
	mkdir -p .config/himalaya
	cat >.config/himalaya/config.toml <<-END
		[accounts.a]
		default = true
		email = "anna@example.org"
		backend.type = "imap"
		backend.host = "$HOST"
		backend.port = $PORT
		backend.login = "$ACCOUNT"
		backend.encryption.type = "$([ "$SECURITY" = tls ] && echo tls || echo start-tls)"
		backend.auth.type = "password"
		backend.auth.raw = "$PASSWORD"
	END
	command himalaya envelope list
}

wanderlust() {
	mkdir -p Mail .elmo
	cat >.wl <<-END
		(setq elmo-imap4-default-user "$ACCOUNT" elmo-imap4-default-server "$HOST" elmo-imap4-default-port $PORT
		      elmo-imap4-default-stream-type '$([ "$SECURITY" = tls ] && echo ssl || echo starttls)
		      elmo-imap4-default-authenticate-type $([ "$ACCOUNT" = anna ] && echo "'plain" || echo "'clear")
		      elmo-pop3-default-user "$ACCOUNT" elmo-pop3-default-server "$HOST" elmo-pop3-default-port $PORT
		      elmo-pop3-default-stream-type '$([ "$SECURITY" = tls ] && echo ssl || echo starttls)
		      elmo-pop3-default-authenticate-type 'user
		      wl-from "anna@example.org" wl-smtp-posting-server "localhost" wl-insert-message-id nil)
		(setq network-security-level 'low)
		(setq elmo-get-passwd-function nil)
		(defun elmo-get-passwd (key) "$PASSWORD")
		(setq wl-demo nil)
	END
	echo "$([ "$PROTO" = imap ] && echo '%INBOX' || echo '&') \"Inbox\"" >.folders
	cat >go.el <<-END
		(setq user-emacs-directory "$HOME/.emacs.d/")
		(require 'wl) (wl-init)
		(load "$HOME/.wl")
		(defun elmo-get-passwd (key) "$PASSWORD")
		(let ((f (elmo-make-folder "$([ "$PROTO" = imap ] && echo '%INBOX' || echo '&')")))
		  (print (elmo-folder-exists-p f)) (print (elmo-folder-list-messages f)))
	END
	emacs -nw -batch -l go.el
}

mew() {
	cat >.mew.el <<-END
		(setq mew-proto "$([ "$PROTO" = imap ] && echo % || echo '$')" mew-name "Anna" mew-user "anna" mew-mail-domain "example.org"
		  mew-imap-user "$ACCOUNT" mew-imap-server "$HOST" mew-imap-ssl t mew-imap-ssl-port "$PORT"
		  mew-pop-user "$ACCOUNT" mew-pop-server "$HOST" mew-pop-ssl t mew-pop-ssl-port "$PORT" mew-pop-auth 'pass mew-imap-auth nil
		  mew-ssl-verify-level 0 mew-use-cached-passwd t mew-prog-ssl "stunnel4")
	END
	emacs -nw -f mew
}

cone() {
	command cone
}

mailfilter() {
	cat >.mailfilterrc <<-END
		SERVER = "$HOST"
		USER = "$ACCOUNT"
		PASS = "$PASSWORD"
		PROTOCOL = "pop3/ssl"
		PORT = $PORT
		LOGFILE = "$HOME/log"
		VERBOSE = 6
	END
	chmod 600 .mailfilterrc
	command mailfilter -M "$HOME/.mailfilterrc"
}

mailsync() {
	local options=/tls
	if [ "$SECURITY" = tls ]; then options=/ssl; fi
	cat >.mailsync <<-END
		store far { server {$HOST:$PORT/imap$options/user=$ACCOUNT} ref {$HOST:$PORT/imap$options/user=$ACCOUNT} pat INBOX passwd $PASSWORD }
		store near { pat $HOME/Mail/% }
	END
	mkdir -p Mail
	command mailsync -M far
}

perdition() {
	command perdition -f /dev/null --protocol "$([ "$PROTO" = imap ] && echo IMAP4 || echo POP3)" --bind_address 127.0.0.1 --listen_port 2143 \
		--no_daemon --outgoing_server "$HOST" --outgoing_port "$PORT" --ssl_mode "$([ "$SECURITY" = tls ] && echo ssl_outgoing || echo tls_outgoing)" \
		--ssl_no_cert_verify --ssl_no_cn_verify --no_lookup -M '' --pid_file "$HOME/pid" --log_facility - --username anna --group anna -d &
	log_in
}

imapproxy() {
	cat >imapproxy.conf <<-END
		server_hostname $HOST
		listen_port 2143
		listen_address 127.0.0.1
		server_port $PORT
		cache_size 3072
		cache_expiration_time 300
		proc_username anna
		proc_groupname anna
		stat_filename $HOME/stat
		protocol_log_filename $HOME/protocol
		syslog_facility LOG_MAIL
		send_tcp_keepalives no
		enable_select_cache no
		foreground_mode yes
		force_tls yes
		enable_admin_commands no
		tls_ca_file $roots
	END
	# It insists on giving up groups, which root alone may do.
	echo 'int setgroups(void) { return 0; }' | cc -shared -o nobody.so -x c -
	LD_PRELOAD=$HOME/nobody.so imapproxyd -f imapproxy.conf &
	log_in
}

# once NAME COMMAND... builds a client as /tmp/NAME, if it is not there yet.
once() {
	local built=/tmp/$1
	shift
	[ -e "$built" ] || "${@:1:2}" -o "$built" "${@:3}"
}

etpan() {
	cat >client.c <<-'END'
		#include <libetpan/libetpan.h>
		#include <stdio.h>
		#include <stdlib.h>
		#include <string.h>
		int main(void) {
			char *host = getenv("HOST"), *user = getenv("ACCOUNT"), *password = getenv("PASSWORD");
			int port = atoi(getenv("PORT"));
			int how = strcmp(getenv("SECURITY"), "tls") ? CONNECTION_TYPE_STARTTLS : CONNECTION_TYPE_TLS;
			struct mailstorage *storage = mailstorage_new(NULL);
			if (strcmp(getenv("PROTO"), "imap"))
				pop3_mailstorage_init(storage, host, port, NULL, how, POP3_AUTH_TYPE_PLAIN, user, password, 0, NULL, NULL);
			else
				imap_mailstorage_init(storage, host, port, NULL, how, IMAP_AUTH_TYPE_PLAIN, user, password, 0, NULL);
			int r = mailstorage_connect(storage);
			printf("%d\n", r);
			if (r == 0)
				mailstorage_disconnect(storage);
			return r;
		}
	END
	once etpan cc client.c -letpan && /tmp/etpan
}

vmime() {
	cat >client.cpp <<-'END'
		#include <cstdlib>
		#include <iostream>
		#include <vmime/platforms/posix/posixHandler.hpp>
		#include <vmime/vmime.hpp>
		struct trusting : vmime::security::cert::certificateVerifier {
			void verify(vmime::shared_ptr<vmime::security::cert::certificateChain>, const vmime::string &) {}
		};
		int main() {
			vmime::platform::setHandler<vmime::platforms::posix::posixHandler>();
			bool tls = std::string(getenv("SECURITY")) == "tls";
			vmime::utility::url url(std::string(getenv("PROTO")) + (tls ? "s" : "") + "://" + getenv("HOST") + ":" + getenv("PORT"));
			auto store = vmime::net::session::create()->getStore(url);
			store->setProperty("auth.username", getenv("ACCOUNT"));
			store->setProperty("auth.password", getenv("PASSWORD"));
			store->setProperty("connection.tls", !tls);
			store->setProperty("connection.tls.required", !tls);
			store->setCertificateVerifier(vmime::make_shared<trusting>());
			try {
				store->connect();
				store->disconnect();
			} catch (std::exception &err) {
				std::cerr << err.what() << "\n";
			}
		}
	END
	once vmime c++ client.cpp -lvmime && /tmp/vmime
}

commons-net() {
	cat >Client.java <<-'END'
		import org.apache.commons.net.imap.IMAPSClient;
		import org.apache.commons.net.pop3.POP3SClient;
		public class Client {
			public static void main(String[] args) throws Exception {
				String host = System.getenv("HOST"), user = System.getenv("ACCOUNT"), password = System.getenv("PASSWORD");
				int port = Integer.parseInt(System.getenv("PORT"));
				boolean tls = System.getenv("SECURITY").equals("tls");
				if (System.getenv("PROTO").equals("imap")) {
					IMAPSClient imap = new IMAPSClient(tls);
					imap.connect(host, port);
					if (!tls) imap.execTLS();
					System.out.println(imap.login(user, password));
					imap.logout();
				} else {
					POP3SClient pop = new POP3SClient(tls);
					pop.connect(host, port);
					if (!tls) pop.execTLS();
					System.out.println(pop.login(user, password));
					pop.logout();
				}
			}
		}
	END
	printf 'jdk.tls.disabledAlgorithms=\n' >security
	local limit=
	if [ "${OPENSSL_CONF:-}" ]; then limit=-Djdk.tls.client.protocols=TLSv1; fi
	javac -cp /usr/share/java/commons-net.jar Client.java
	java $limit -Djava.security.properties=security -Djavax.net.ssl.trustStore=/etc/ssl/certs/java/cacerts -cp /usr/share/java/commons-net.jar:. Client
}

dovecot_of_anna='
	base_dir = $HOME/run
	state_dir = $HOME/run
	log_path = /dev/stderr
	default_internal_user = anna
	default_login_user = anna
	default_internal_group = anna
	first_valid_uid = 8
	mail_uid = anna
	mail_gid = anna
	mail_home = $HOME/mail'

pop3c() {
	cat >dovecot.conf <<-END
		${dovecot_of_anna//\$HOME/$HOME}
		protocols =
		service anvil {
		  chroot =
		}
		service dns-client {
		  chroot =
		}
		mail_location = pop3c:$HOME/mail
		pop3c_host = $(getent hosts "$HOST" | cut -d ' ' -f 1)
		pop3c_port = $PORT
		pop3c_user = $ACCOUNT
		pop3c_password = $PASSWORD
		pop3c_ssl = $([ "$SECURITY" = tls ] && echo pop3s || echo starttls)
		pop3c_ssl_verify = no
		ssl_client_ca_file = $roots
	END
	/usr/sbin/dovecot -F -c dovecot.conf &
	sleep 2
	doveadm -c dovecot.conf mailbox status messages INBOX
}

imapc24() {
	cat >dovecot.conf <<-END
		dovecot_config_version = 2.4.0
		dovecot_storage_version = 2.4.0
		${dovecot_of_anna//\$HOME/$HOME}
		mail_driver = imapc
		mail_path = $HOME/mail
		imapc_host = $(getent hosts "$HOST" | cut -d ' ' -f 1)
		imapc_port = $PORT
		imapc_user = $ACCOUNT
		imapc_password = $PASSWORD
		imapc_ssl = $([ "$SECURITY" = tls ] && echo imaps || echo starttls)
		ssl_client_ca_file = $roots
		ssl_client_require_valid_cert = no
	END
	doveadm -c dovecot.conf mailbox status --no-userdb-lookup messages INBOX
}

# log_in logs in to a proxy of this machine, which then logs in to $HOST.
log_in() {
	for _ in $(seq 1 30); do
		if (echo >/dev/tcp/127.0.0.1/2143) 2>/dev/null; then break; fi
		sleep 0.3
	done
	if [ "$PROTO" = imap ]; then
		PYTHONPATH= python3 -c "import imaplib, os; i = imaplib.IMAP4('127.0.0.1', 2143); i.login(os.environ['ACCOUNT'], os.environ['PASSWORD'])"
	else
		PYTHONPATH= python3 -c "import poplib, os; p = poplib.POP3('127.0.0.1', 2143); p.user(os.environ['ACCOUNT']); p.pass_(os.environ['PASSWORD'])"
	fi
}

dovecot-proxy() {
	local how=ssl=any-cert
	if [ "$SECURITY" = starttls ]; then how=starttls=any-cert; fi
	cat >dovecot.conf <<-END
		${dovecot_of_anna//\$HOME/$HOME}
		protocols = $PROTO
		listen = 127.0.0.1
		ssl = no
		ssl_client_ca_file = $roots
		disable_plaintext_auth = no
		passdb {
		  driver = static
		  args = nopassword=y proxy=y host=$(getent hosts "$HOST" | cut -d ' ' -f 1) port=$PORT $how
		}
		userdb {
		  driver = static
		  args = uid=anna gid=anna home=$HOME/mail
		}
		service anvil {
		  chroot =
		}
		service $PROTO-login {
		  chroot =
		  inet_listener $PROTO {
		    port = 2143
		  }
		  inet_listener ${PROTO}s {
		    port = 0
		  }
		}
	END
	/usr/sbin/dovecot -F -c dovecot.conf &
	log_in
}

interimap() {
	local end="type = $([ "$SECURITY" = tls ] && echo imaps || echo imap)
		host = $HOST
		port = $PORT
		username = $ACCOUNT
		password = $PASSWORD
		SSL_CAfile = $roots"
	mkdir -p .config/interimap .local/share/interimap
	printf 'database = a.db\n[local]\n%s\n[remote]\n%s\n' "$end" "$end" | sed 's/^\t*//' >.config/interimap/config
	chmod 600 .config/interimap/config
	command interimap
}

cyradm() {
	command cyradm --user "$ACCOUNT" --port "$PORT" --password "$PASSWORD" "$HOST"
}

# What tries passwords, as it comes.
hydra() {
	local how=
	if [ "$SECURITY" = tls ]; then how=-S; fi
	command hydra -I -t 1 $how -l "$ACCOUNT" -p "$PASSWORD" -s "$PORT" "$PROTO://$HOST$([ "$SECURITY" = tls ] || echo /TLS)"
}

medusa() {
	command medusa -s -t 1 -h "$HOST" -n "$PORT" -u "$ACCOUNT" -p "$PASSWORD" -M "$PROTO"
}

ncrack() {
	command ncrack --user "$ACCOUNT" --pass "$PASSWORD" "$PROTO://$HOST:$PORT,ssl"
}

node_limit='const limited = process.env.OPENSSL_CONF ? old : {};'

imapflow1() { like_imapflow imapflow1; }
like_imapflow() {
	MODULE=/npm/node_modules/$1 node -e "$node_tls$node_limit"'
		const { ImapFlow } = require(process.env.MODULE);
		const client = new ImapFlow({ host, port, secure: tls, doSTARTTLS: !tls, auth: { user, pass }, tls: limited, logger: false });
		(async () => { await client.connect(); await client.logout(); })();'
}
imapflow() { like_imapflow imapflow; }

node-imap() { like_node_imap imap; }
node-imap-fork() { like_node_imap node-imap; }
like_node_imap() {
	MODULE=/npm/node_modules/$1 node -e "$node_tls$node_limit"'
		const Imap = require(process.env.MODULE);
		const imap = new Imap({ host, port, user, password: pass, tls, autotls: tls ? "never" : "required", tlsOptions: limited });
		imap.once("ready", () => imap.openBox("INBOX", true, (err, box) => imap.end()));
		imap.once("error", err => console.error("error:", err.message));
		imap.connect();'
}

node-pop3() {
	node -e "$node_tls$node_limit"'
		const Pop3 = require("/npm/node_modules/node-pop3");
		const pop = new (Pop3.default || Pop3)({ host, port, user, password: pass, tls, tlsOptions: limited });
		(async () => { console.log(await pop.UIDL()); await pop.QUIT(); })();'
}

emailjs() {
	NODE_PATH=/npm/node_modules node -e "$node_tls$node_limit"'
		const Client = require("emailjs-imap-client").default;
		const client = new Client(host, port, { auth: { user, pass }, useSecureTransport: tls, requireTLS: !tls, logLevel: "error" });
		client.onerror = e => console.error(e);
		client.connect().then(() => client.close());'
}

inbox() {
	node -e "$node_tls$node_limit"'
		const client = require("/npm/node_modules/inbox").createConnection(port, host, { secureConnection: true, auth: { user, pass } });
		client.on("connect", () => client.close()); client.on("error", e => console.error(e)); client.connect();'
}

poplib() { like_poplib poplib; }
mailpop3() { like_poplib mailpop3; }
like_poplib() {
	# STLS works in the Node of its time alone.
	MODULE=/npm/node_modules/$1 "/npm/node_modules/node-$([ "$SECURITY" = tls ] && echo 14 || echo 0.10)/bin/node" -e '
		process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
		var env = process.env, tls = env.SECURITY == "tls", Client = require(env.MODULE);
		var client = new Client(+env.PORT, env.HOST, { tlserrs: false, ignoretlserrs: true, enabletls: tls, debug: false });
		function login() { client.login(env.ACCOUNT, env.PASSWORD); }
		client.on("error", function (e) { console.error(e); });
		client.on("connect", function () { if (tls) login(); else client.stls(); });
		client.on("stls", login);
		client.on("login", function () { client.quit(); });'
}

yapople() {
	node -e "$node_tls$node_limit"'
		const { Client } = require("/npm/node_modules/yapople");
		const client = new Client({ host, port, tls, mailparser: false, options: limited, username: user, password: pass });
		(async () => { await client.connect(); console.log(await client.count()); await client.quit(); })();'
}

goimap() { /go/goimap; }
goimap1() { /go/goimap1; }
mxk() { /go/mxk; }

"$1"
