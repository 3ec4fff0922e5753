# Mail programs with windows, in the manner of ../recipes.sh; recipes.sh stands behind this.

# windowed runs a program with windows in a D-Bus session of its own. A window that asks
# for a password gets it, and errors are closed: claws-mail misses folders, as of a new
# account. Pictures of the screen are kept if SHOTS names a folder.
windowed() {
	export DISPLAY=:$((RANDOM % 900 + 100)) GDK_BACKEND=x11 NO_AT_BRIDGE=1
	export WEBKIT_FORCE_SANDBOX=0 WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS=1 # there are no user namespaces in a chroot
	Xvfb "$DISPLAY" -screen 0 1280x900x24 >Xvfb.log 2>&1 &
	sleep 1
	openbox >openbox.log 2>&1 &
	dbus-run-session -- "$@" &
	local i window
	if [ "${SHOTS:-}" ]; then mkdir -p "$SHOTS"; fi
	for i in $(seq 1 20); do
		sleep 2
		if [ "${SHOTS:-}" ]; then import -window root "$SHOTS/$i.png"; fi
		window=$(xdotool search --onlyvisible --name '([Pp]assword|[Aa]uthentication)' 2>/dev/null | head -1)
		if [ "$window" ]; then
			xdotool windowfocus "$window"
			xdotool type "$PASSWORD"
			xdotool key Return
		elif xdotool search --onlyvisible --name '^Error$' windowfocus >/dev/null 2>&1; then
			xdotool key Return
		fi
	done
}

# with_keyring unlocks a keyring first, and with_secret stores the password in it, as the
# attributes say.
with_keyring() {
	# shellcheck disable=SC2016 # for the inner shell
	windowed bash -c 'echo -n x | gnome-keyring-daemon --unlock --components=secrets >/dev/null; exec "$@"' - "$@"
}
with_secret() { # ATTRIBUTES COMMAND...
	local attributes=$1
	shift
	# shellcheck disable=SC2016,SC2086 # for the inner shell; several words
	with_keyring bash -c 'attributes=$1; shift
		echo -n "$PASSWORD" | secret-tool store --label=mail $attributes
		exec "$@"' - "$attributes" "$@"
}

claws-mail() { like_claws .claws-mail claws-mail; }
sylpheed() { like_claws .sylpheed-2.0 sylpheed; }
like_claws() {
	local kind=3 ssl=1 folder='type="imap" name="anna" path="anna" account_id="1"' inbox=INBOX
	if [ "$SECURITY" = starttls ]; then ssl=2; fi
	if [ "$PROTO" = pop3 ]; then kind=0 folder="type=\"mh\" name=\"Mailbox\" path=\"$HOME/Mail\"" inbox=inbox; fi
	mkdir -p "$1" Mail/inbox
	cat >"$1/accountrc" <<-END
		[Account: 1]
		account_name=anna
		is_default=1
		name=Anna
		address=anna@example.org
		protocol=$kind
		receive_server=$HOST
		user_id=$ACCOUNT
		password=$PASSWORD
		set_popport=1
		pop_port=$PORT
		set_imapport=1
		imap_port=$PORT
		ssl_pop=$ssl
		ssl_imap=$ssl
		use_apop_auth=$([ "${HOST%%.*}" = apop ] && echo 1 || echo 0)
		ssl_certs_auto_accept=1
		receive_at_get_all=1
		receive_at_getall=1
		inbox=#mh/Mailbox/inbox
	END
	printf '[account:1]\nrecv=%s\n' "$PASSWORD" >"$1/passwordstorerc"
	cat >"$1/folderlist.xml" <<-END
		<?xml version="1.0" encoding="UTF-8"?>
		<folderlist>
		<folder $folder><folderitem type="inbox" name="$inbox" path="$inbox" mtime="0" new="0" unread="0" total="0" /></folder>
		</folderlist>
	END
	windowed "$2" --receive-all
}

balsa() {
	local kind=LibBalsaMailboxImap security=1 inbox input=1 box
	if [ "$SECURITY" = starttls ]; then security=2; fi
	if [ "$PROTO" = pop3 ]; then kind=LibBalsaMailboxPOP3; fi
	mkdir -p .balsa mail
	{
		printf '[Globals]\nMailDir=%s\nOpenInboxOnStartup=true\n' "$HOME/mail"
		printf '[MailboxChecking]\nOnStartup=true\nCheckIMAP=1\n[Notifications]\nGtkUIManager=true\nLibBalsaAddressView=true\n'
		for box in Inbox Outbox Sentbox Draftbox Trash; do
			touch "mail/$box"
			if [ "$box$PROTO" = Inboximap ]; then input=Inbox && continue; fi
			printf '[mailbox-%s]\nType=LibBalsaMailboxMbox\nName=%s\nPath=%s\n' $box $box "$HOME/mail/$box"
		done
		cat <<-END
			[mailbox-$input]
			Type=$kind
			Name=anna
			Server=$HOST:$PORT
			Path=INBOX
			Security=$security
			RememberPasswd=true
			Check=true
			[identity-default]
			FullName=Anna
			Address=anna@example.org
		END
	} >.balsa/config
	cat >.balsa/config-private <<-END
		[mailbox-$input]
		Username=$ACCOUNT
		Password=$(echo "$PASSWORD" | tr A-Za-z N-ZA-Mn-za-m)
	END
	chmod 600 .balsa/config-private
	with_keyring balsa --check-mail
}

# Evolution logs in as its account says: WAY is a mechanism of SASL, or empty.
evolution() {
	local backend=imapx security=ssl-on-alternate-port
	if [ "$SECURITY" = starttls ]; then security=starttls-on-standard-port; fi
	if [ "$PROTO" = pop3 ]; then backend=pop; fi
	mkdir -p .config/evolution/sources
	cat >.config/evolution/sources/account.source <<-END
		[Data Source]
		DisplayName=anna
		Enabled=true
		Parent=

		[Mail Account]
		BackendName=$backend
		IdentityUid=identity

		[Authentication]
		Host=$HOST
		Method=${WAY:-}
		Port=$PORT
		ProxyUid=system-proxy
		RememberPassword=true
		User=$ACCOUNT

		[Security]
		Method=$security

		[Refresh]
		Enabled=true
		IntervalMinutes=1
	END
	cat >.config/evolution/sources/identity.source <<-END
		[Data Source]
		DisplayName=anna
		Enabled=true
		Parent=account

		[Mail Identity]
		Address=anna@example.org
		Name=Anna
	END
	with_secret "e-source-uid account eds-origin evolution-data-server xdg:schema org.gnome.Evolution.Data.Source" \
		evolution --force-online -c mail
}

geary() {
	mkdir -p .config/geary/account_01
	cat >.config/geary/account_01/geary.ini <<-END
		[Metadata]
		version=1
		status=enabled

		[Account]
		ordinal=1
		label=anna
		prefetch_days=14
		save_drafts=false
		save_sent=false
		use_signature=false
		sender_mailboxes=anna@example.org;
		service_provider=other

		[Incoming]
		login=$ACCOUNT
		remember_password=true
		host=$HOST
		port=$PORT
		transport_security=$([ "$SECURITY" = tls ] && echo transport || echo start-tls)
		credentials=custom

		[Outgoing]
		remember_password=false
		host=localhost
		port=25
		transport_security=none
		credentials=none
	END
	with_secret "login $ACCOUNT host $HOST proto IMAP xdg:schema org.gnome.Geary" geary
}

thunderbird() {
	local type=$PROTO socket=2
	if [ "$SECURITY" = tls ]; then socket=3; fi
	mkdir -p profile
	cat >profile/user.js <<-END
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
	if [ "${OPENSSL_CONF:-}" ]; then
		cat >>profile/user.js <<-END
			user_pref("security.tls.version.enable-deprecated", true);
			user_pref("security.tls.version.min", 1);
			user_pref("security.tls.version.max", 1);
		END
	fi
	windowed thunderbird --no-remote --profile "$HOME/profile"
}

# KMail's mail is fetched by an agent of Akonadi, which is all that has to run, and is asked
# to fetch. WAY is as for Evolution.
kmail() {
	local agent=akonadi_${PROTO}_resource_0 method=7 key=akonadi_${PROTO}_resource_0
	case ${WAY:-} in
	LOGIN) method=0 ;;
	PLAIN) method=1 ;;
	CRAM-MD5) method=2 ;;
	+APOP) method=6 ;;
	esac
	if [ "$PROTO" = imap ]; then key+=rc; fi
	mkdir -p .config/akonadi
	printf '[%%General]\nDriver=QSQLITE%s\n' \
		"$([ -e /usr/lib/x86_64-linux-gnu/qt5/plugins/sqldrivers/libqsqlite3.so ] && echo 3)" >.config/akonadi/akonadiserverrc
	printf '[Instances]\n%s\\AgentType=%s\n' "$agent" "${agent%_0}" >.config/akonadi/agentsrc
	cat >".config/${agent}rc" <<-END
		[network]
		ImapServer=$HOST
		ImapPort=$PORT
		UserName=$ACCOUNT
		Safety=$([ "$SECURITY" = tls ] && echo SSL || echo STARTTLS)
		Authentication=$method
		[General]
		host=$HOST
		port=$PORT
		login=$ACCOUNT
		useSSL=$([ "$SECURITY" = tls ] && echo true || echo false)
		useTLS=$([ "$SECURITY" = tls ] && echo false || echo true)
		authenticationMethod=$method
	END
	printf '[Wallet]\nEnabled=false\n' >.config/kwalletrc
	# shellcheck disable=SC2016 # for the inner shell
	with_secret "server $PROTO user $key type plaintext xdg:schema org.qt.keychain" \
		bash -c 'akonadictl start
			while sleep 4; do
				dbus-send --print-reply --dest="org.freedesktop.Akonadi.Resource.$0" / org.freedesktop.Akonadi.Resource.synchronize
			done' "$agent"
}
