#!/usr/bin/env bash
# One function a mail program: it configures the program as its manual says, in
# an empty home, and runs it to fetch or list mail. measure.py calls
# "recipes.sh NAME" with PROTO (imap, pop3), SECURITY (tls, starttls), HOST,
# PORT, ACCOUNT and PASSWORD. What limits a program to old TLS stands here where
# OPENSSL_CONF and GnuTLS's own file do not reach it.
set -u
roots=/etc/ssl/certs/ca-certificates.crt
: "${URL_ACCOUNT:=$ACCOUNT}" "${URL_PASSWORD:=$PASSWORD}" # the same, escaped for an URL
secure=${PROTO:0:4}
if [ "$SECURITY" = tls ]; then secure=${PROTO}s; fi # imaps, pop3s: the scheme of an URL

yes_if() { if [ "$SECURITY" = "$1" ]; then echo yes; else echo no; fi; }

alpine() {
	local options=/tls
	if [ "$SECURITY" = tls ]; then options=/ssl; fi
	if [ "$PROTO" = pop3 ]; then options=/pop3$options; fi
	cat >.pinerc <<-END
		user-domain=example.org
		personal-name=Anna
		inbox-path={$HOST:$PORT$options/user=$ACCOUNT}INBOX
		last-time-prune-questioned=126.11
		last-version-used=6.26
		feature-list=quit-without-confirm,no-enable-newmail-sound
	END
	command alpine -p .pinerc -i
}

mutt() { like_mutt mutt; }
neomutt() { like_mutt neomutt; }
like_mutt() {
	local scheme=${secure/pop3/pop}
	cat >.muttrc <<-END
		set imap_pass="$PASSWORD" pop_pass="$PASSWORD" folder="$HOME/Mail"
		set ssl_force_tls=yes ssl_starttls=yes ssl_ca_certificates_file="$roots"
	END
	mkdir -p Mail
	command "$1" -F .muttrc -f "$scheme://$URL_ACCOUNT@$HOST:$PORT/"
}

s-nail() {
	command s-nail -n -S v15-compat -S imap-use-starttls -S pop3-use-starttls \
		-S tls-config-pairs=MinProtocol=TLSv1,MaxProtocol=TLSv1,CipherString=DEFAULT:@SECLEVEL=0 \
		-f "$secure://$URL_ACCOUNT:$URL_PASSWORD@$HOST:$PORT"
}

mpop() {
	cat >.mpoprc <<-END
		account a
		host $HOST
		port $PORT
		user $ACCOUNT
		password $PASSWORD
		tls on
		tls_starttls $([ "$SECURITY" = starttls ] && echo on || echo off)
		tls_trust_file $roots
		delivery maildir $HOME/Maildir
	END
	chmod 600 .mpoprc
	mkdir -p Maildir/{cur,new,tmp}
	command mpop a
}

fdm() {
	local options=
	if [ "$SECURITY" = starttls ]; then options=starttls; fi
	cat >.fdm.conf <<-END
		action "drop" drop
		match all action "drop"
		account "a" $secure server "$HOST" port $PORT user "$ACCOUNT" pass "$PASSWORD" $options
	END
	chmod 600 .fdm.conf
	command fdm -f .fdm.conf -k fetch
}

imapfilter() {
	mkdir -p .imapfilter
	cat >.imapfilter/config.lua <<-END
		account = IMAP { server = '$HOST', port = $PORT, username = '$ACCOUNT',
		  password = '$PASSWORD' $([ "$SECURITY" = tls ] && echo ", ssl = 'auto'") }
		account.INBOX:check_status()
	END
	command imapfilter
}

offlineimap() {
	cat >.offlineimaprc <<-END
		[general]
		accounts = A
		[Account A]
		localrepository = L
		remoterepository = R
		[Repository L]
		type = Maildir
		localfolders = $HOME/Maildir
		[Repository R]
		type = IMAP
		remotehost = $HOST
		remoteport = $PORT
		remoteuser = $ACCOUNT
		remotepass = $PASSWORD
		ssl = $(yes_if tls)
		starttls = $(yes_if starttls)
		sslcacertfile = $roots
	END
	command offlineimap -o -u basic
}

getmail() {
	local kind=IMAP
	if [ "$PROTO" = pop3 ]; then kind=POP3; fi
	mkdir -p .getmail Maildir/{cur,new,tmp}
	cat >.getmail/getmailrc <<-END
		[retriever]
		type = Simple${kind}SSLRetriever
		server = $HOST
		port = $PORT
		username = $ACCOUNT
		password = $PASSWORD
		[destination]
		type = Maildir
		path = $HOME/Maildir/
	END
	command getmail
}

mail() {
	local scheme=${secure/pop3/pop}
	command mail.mailutils -n -H -f "$scheme://$URL_ACCOUNT:$URL_PASSWORD@$HOST:$PORT"
}

movemail() {
	local scheme=${secure/pop3/pop}
	command movemail.mailutils --preserve "$scheme://$URL_ACCOUNT:$URL_PASSWORD@$HOST:$PORT" "$HOME/mbox"
}

aerc() {
	mkdir -p .config/aerc
	cp /usr/share/aerc/{aerc.conf,binds.conf} .config/aerc/
	cat >.config/aerc/accounts.conf <<-END
		[Anna]
		source = $secure://$URL_ACCOUNT:$URL_PASSWORD@$HOST:$PORT
		default = INBOX
		from = Anna <anna@example.org>
	END
	chmod 600 .config/aerc/accounts.conf
	python3 -c 'whole = open("/usr/bin/aerc", "rb").read()
open("aerc", "wb").write(whole.replace(b"\4\3\3\3\2\3\1\3", b"\3\3\3\3\2\3\1\3"))' # 1.3, 1.2, 1.1, 1.0
	chmod +x aerc
	./aerc
}

gnus() {
	local stream=ssl
	if [ "$SECURITY" = starttls ]; then stream=starttls; fi
	echo "machine $HOST login $ACCOUNT password $PASSWORD port $PORT" >.authinfo
	chmod 600 .authinfo
	if [ "$PROTO" = imap ]; then
		cat >.gnus.el <<-END
			(setq gnus-select-method '(nnimap "mail" (nnimap-address "$HOST")
			  (nnimap-server-port $PORT) (nnimap-stream $stream)))
		END
	else
		cat >.gnus.el <<-END
			(setq gnus-select-method '(nnml "")
			  mail-sources '((pop :server "$HOST" :port $PORT :user "$ACCOUNT"
			    :password "$PASSWORD" :stream $stream)))
		END
	fi
	echo '(setq network-security-level (quote low) inhibit-startup-screen t)' >.emacs
	emacs -nw -f gnus
}

php() {
	local options=/$PROTO/tls
	if [ "$SECURITY" = tls ]; then options=/$PROTO/ssl; fi
	# shellcheck disable=SC2016 # PHP
	OPTIONS=$options command php -d display_errors=stderr -d html_errors=0 -r '
		$box = imap_open("{".getenv("HOST").":".getenv("PORT").getenv("OPTIONS")."}INBOX",
			getenv("ACCOUNT"), getenv("PASSWORD"));
		if (!$box) { fwrite(STDERR, "Cannot open the mailbox: ".imap_last_error()."\n"); exit(1); }
		echo imap_num_msg($box), " messages\n";'
}

perl() {
	if [ "$PROTO" = imap ]; then
		command perl -MMail::IMAPClient -e '
			my ($host, $port) = @ENV{qw(HOST PORT)};
			my $imap = Mail::IMAPClient->new(Server => $host, Port => $port,
				User => $ENV{ACCOUNT}, Password => $ENV{PASSWORD},
				$ENV{SECURITY} eq "tls" ? (Ssl => 1) : (Starttls => [SSL_verifycn_scheme => "imap", SSL_verifycn_name => $host]))
				or die "Cannot connect: $@\n";
			print $imap->message_count("INBOX"), " messages\n";'
	else
		command perl -MNet::POP3 -e '
			my $pop = Net::POP3->new($ENV{HOST}, Port => $ENV{PORT},
				SSL => $ENV{SECURITY} eq "tls") or die "Cannot connect: $@\n";
			if ($ENV{SECURITY} ne "tls") { $pop->starttls or die "Cannot start TLS: ".$pop->message." $@\n" }
			my $n = $pop->login(@ENV{qw(ACCOUNT PASSWORD)});
			die "Cannot log in: ".$pop->message."\n" unless defined $n;
			print $n + 0, " messages\n";'
	fi
}

# Ruby sets the bounds of OpenSSL's section aside.
ruby_tls='old = {max_version: :TLS1, ciphers: "DEFAULT:@SECLEVEL=0"}
	tls = ENV["SECURITY"] == "tls"
'

ruby() {
	if [ "$PROTO" = imap ]; then
		command ruby -rnet/imap -e "$ruby_tls"'
			imap = Net::IMAP.new(ENV["HOST"], port: ENV["PORT"], ssl: tls && old)
			imap.starttls(old) unless tls
			imap.login(ENV["ACCOUNT"], ENV["PASSWORD"])
			puts imap.status("INBOX", ["MESSAGES"])'
	else
		command ruby -rnet/pop -e "$ruby_tls"'
			pop = Net::POP3.new(ENV["HOST"], ENV["PORT"].to_i)
			pop.enable_ssl(old)
			pop.start(ENV["ACCOUNT"], ENV["PASSWORD"])
			puts pop.n_mails'
	fi
}

python() {
	if [ "$PROTO" = imap ]; then
		python3 -c '
import imaplib, os, ssl
host, port, context = os.environ["HOST"], int(os.environ["PORT"]), ssl.create_default_context()
if os.environ["SECURITY"] == "tls":
    imap = imaplib.IMAP4_SSL(host, port, ssl_context=context)
else:
    imap = imaplib.IMAP4(host, port)
    imap.starttls(context)
imap.login(os.environ["ACCOUNT"], os.environ["PASSWORD"])
print(imap.select())'
	else
		python3 -c '
import os, poplib, ssl
host, port, context = os.environ["HOST"], int(os.environ["PORT"]), ssl.create_default_context()
if os.environ["SECURITY"] == "tls":
    pop = poplib.POP3_SSL(host, port, context=context)
else:
    pop = poplib.POP3(host, port)
    pop.stls(context)
pop.user(os.environ["ACCOUNT"])
pop.pass_(os.environ["PASSWORD"])
print(pop.stat())'
	fi
}

# The options that limit Node, which does not read the system's OpenSSL section.
node_tls='const old = { minVersion: "TLSv1", maxVersion: "TLSv1", ciphers: "DEFAULT:@SECLEVEL=0" };
const { HOST: host, ACCOUNT: user, PASSWORD: pass } = process.env;
const port = +process.env.PORT, tls = process.env.SECURITY == "tls";
'

imapflow() {
	node -e "$node_tls"'
		const { ImapFlow } = require("/measured/npm/node_modules/imapflow");
		const client = new ImapFlow({ host, port, secure: tls, doSTARTTLS: !tls,
			auth: { user, pass }, tls: old, logger: false });
		(async () => {
			await client.connect();
			console.log(await client.status("INBOX", { messages: true }));
			await client.logout();
		})();'
}

node-imap() {
	node -e "$node_tls"'
		const Imap = require("/measured/npm/node_modules/imap");
		const imap = new Imap({ host, port, user, password: pass, tls, autotls: tls ? "never" : "required", tlsOptions: old });
		imap.once("ready", () => imap.openBox("INBOX", true, (err, box) => {
			console.log(err || box.messages); imap.end(); }));
		imap.on("alert", text => console.log("alert:", text));
		imap.once("error", err => { console.error("error:", err.message); process.exitCode = 1; });
		imap.connect();'
}

node-pop3() {
	node -e "$node_tls"'
		const Pop3 = require("/measured/npm/node_modules/node-pop3");
		const pop = new Pop3({ host, port, user, password: pass, tls, tlsOptions: old });
		(async () => { console.log(await pop.UIDL()); await pop.QUIT(); })();'
}

javamail() {
	cat >Mail.java <<-'END'
		import java.util.Properties;
		import javax.mail.*;
		public class Mail {
			public static void main(String[] args) throws MessagingException {
				String protocol = args[0];
				Properties p = new Properties();
				if (!protocol.endsWith("s")) {
					p.put("mail." + protocol + ".starttls.enable", "true");
					p.put("mail." + protocol + ".starttls.required", "true");
				}
				p.put("mail." + protocol + ".ssl.protocols", "TLSv1");
				Store store = Session.getInstance(p).getStore(protocol);
				store.connect(System.getenv("HOST"), Integer.parseInt(System.getenv("PORT")),
					System.getenv("ACCOUNT"), System.getenv("PASSWORD"));
				System.out.println(store.getFolder("INBOX").getMessageCount() + " messages");
				store.close();
			}
		}
	END
	echo 'jdk.tls.disabledAlgorithms=SSLv3' >security
	java -Djava.security.properties=security -cp /usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar Mail.java "$secure"
}

curl() {
	local options=--ssl-reqd
	if [ "$SECURITY" = tls ]; then options=; fi
	# shellcheck disable=SC2086 # none or one
	command curl -sS --tlsv1.0 --tls-max 1.0 --ciphers DEFAULT@SECLEVEL=0 $options -u "$ACCOUNT:$PASSWORD" "$secure://$HOST:$PORT/"
}

fetchmail() {
	local options='sslproto "auto"'
	if [ "$SECURITY" = tls ]; then options='ssl sslproto "auto"'; fi
	cat >.fetchmailrc <<-END
		poll $HOST proto $PROTO port $PORT user "$ACCOUNT" pass "$PASSWORD" $options mda "/bin/cat"
	END
	chmod 600 .fetchmailrc
	command fetchmail -k
}

mbsync() {
	mkdir -p Maildir
	cat >.mbsyncrc <<-END
		IMAPStore remote
		Host $HOST
		Port $PORT
		User $ACCOUNT
		Pass $PASSWORD
		SSLType $([ "$SECURITY" = tls ] && echo IMAPS || echo STARTTLS)
		SSLVersions TLSv1
		CertificateFile $roots

		MaildirStore local
		Path $HOME/Maildir/
		Inbox $HOME/Maildir/INBOX

		Channel a
		Far :remote:
		Near :local:
		Patterns INBOX
		Create Near
	END
	command mbsync a
}

goimap() { /measured/build/goimap; }

# windowed runs a program with windows for half a minute, and prints what can be
# read on the screen whenever that has changed. The pictures stay in $SHOTS.
windowed() {
	export DISPLAY=:$((RANDOM % 900 + 100))
	Xvfb "$DISPLAY" -screen 0 1280x900x24 >Xvfb.log 2>&1 &
	sleep 1
	openbox >openbox.log 2>&1 &
	dbus-run-session -- "$@" >program.log 2>&1 &
	local i picture last=none
	for i in $(seq 1 15); do
		sleep 2
		picture=$SHOTS/$1-$MODE-$PROTO-$SECURITY-$i.png
		import -window root "$picture"
		if [ "$(convert "$picture" rgb:- | sha1sum)" = "$last" ]; then
			rm "$picture"
		else
			last=$(convert "$picture" rgb:- | sha1sum)
			convert "$picture" -colorspace gray -resize 300% -negate large.png
			tesseract large.png - --psm 6 2>/dev/null
		fi
		if [ "$i" = 7 ] || [ "$i" = 11 ]; then xdotool key Return; fi # OK to a notice: another may lie beneath
	done
}

thunderbird() {
	local type=$PROTO socket=2
	if [ "$SECURITY" = tls ]; then socket=3; fi
	mkdir -p profile
	cat >profile/user.js <<-END
		user_pref("security.tls.version.enable-deprecated", true);
		user_pref("security.tls.version.min", 1);
		user_pref("security.tls.version.max", 1);
		user_pref("mail.accountmanager.accounts", "account1");
		user_pref("mail.accountmanager.defaultaccount", "account1");
		user_pref("mail.account.account1.server", "server1");
		user_pref("mail.account.account1.identities", "id1");
		user_pref("mail.identity.id1.fullName", "Anna");
		user_pref("mail.identity.id1.useremail", "anna@example.org");
		user_pref("mail.server.server1.type", "$type");
		user_pref("mail.server.server1.name", "anna");
		user_pref("mail.server.server1.hostname", "$HOST");
		user_pref("mail.server.server1.port", $PORT);
		user_pref("mail.server.server1.userName", "$ACCOUNT");
		user_pref("mail.server.server1.socketType", $socket);
		user_pref("mail.server.server1.authMethod", 3);
		user_pref("mail.server.server1.login_at_startup", true);
		user_pref("mail.server.server1.check_new_mail", true);
		user_pref("mailnews.start_page.enabled", false);
		user_pref("mail.shell.checkDefaultClient", false);
		user_pref("mail.provider.suppress_dialog_on_startup", true);
		user_pref("mail.spotlight.firstRunDone", true);
		user_pref("mail.rights.version", 1);
		user_pref("app.donation.eoy.version.viewed", 999);
		user_pref("datareporting.policy.dataSubmissionPolicyBypassNotification", true);
	END
	windowed thunderbird --no-remote --profile "$HOME/profile"
}

claws-mail() {
	local kind=0 ssl=1
	if [ "$SECURITY" = starttls ]; then ssl=2; fi
	mkdir -p .claws-mail Mail/inbox
	cat >.claws-mail/accountrc <<-END
		[Account: 1]
		account_name=anna
		is_default=1
		name=Anna
		address=anna@example.org
		protocol=$kind
		receive_server=$HOST
		user_id=$ACCOUNT
		set_popport=1
		pop_port=$PORT
		ssl_pop=$ssl
		ssl_certs_auto_accept=1
		receive_at_get_all=1
		inbox=#mh/Mailbox/inbox
	END
	cat >.claws-mail/folderlist.xml <<-END
		<?xml version="1.0" encoding="UTF-8"?>
		<folderlist>
		<folder type="mh" name="Mailbox" path="$HOME/Mail"></folder>
		</folderlist>
	END
	windowed claws-mail --receive-all
}

"$1"
