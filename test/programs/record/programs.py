"""The mail programs that are recorded: what each is called, and what it takes."""

import dataclasses

PORTS = {"imaps": 993, "imap": 143, "pop3s": 995, "pop3": 110}
ALL, IMAP, POP3 = tuple(PORTS), ("imaps", "imap"), ("pop3s", "pop3")


@dataclasses.dataclass
class Program:
    package: str
    library: str
    listeners: tuple
    shown: str = ""  # the name in the table, where it is not the recipe's
    answers: dict | None = None  # keys to press when a pattern shows, for programs of a terminal
    recipe: str = ""
    version: str = ""  # a command that prints it, where it is not the package's
    needs: tuple = ()
    roots: tuple = ()
    apop: bool = False
    ways: dict | None = None  # by server: what the recipe gets as WAY, one run for each
    seconds: int = 20
    grace: float = 0.3


WAYS = {"full": ("", "PLAIN"), "sasl": ("", "PLAIN", "LOGIN", "CRAM-MD5"), "apop": ("+APOP",)}
PASSWORD = {"(?i)password": "PASSWORD\r"}
PROGRAMS = {
    "curl": Program("curl", "openssl", ALL, apop=True),
    "fetchmail": Program("fetchmail", "openssl", ALL),
    "python": Program("python3", "openssl", IMAP, shown="Python imaplib", version="python3 -c \"import platform; print(platform.python_version())\""),
    "python-pop3": Program("python3", "openssl", POP3, shown="Python poplib", recipe="python", version="python3 -c \"import platform; print(platform.python_version())\""),
    "mutt": Program("mutt", "gnutls", ALL, answers={}, apop=True),
    "neomutt": Program("neomutt", "gnutls", ALL, answers={}, apop=True),
    "mbsync": Program("isync", "openssl", IMAP),
    "getmail": Program("getmail6", "openssl", ("imaps", "pop3s")),
    "offlineimap": Program("offlineimap3", "openssl", IMAP, shown="OfflineIMAP", version="offlineimap --version"),
    "fdm": Program("fdm", "openssl", ALL),
    "imapfilter": Program("imapfilter", "openssl", IMAP),
    "mpop": Program("mpop", "gnutls", POP3, apop=True),
    "s-nail": Program("s-nail", "openssl", ALL),
    "alpine": Program("alpine", "openssl", ALL, answers={"Welcome|GREETING": "e", "PASSWORD:": "PASSWORD\r", "Preserve password": "n"}),
    "php": Program("php-imap", "openssl", ALL, shown="PHP imap", version="php -r \"echo PHP_VERSION;\""),
    "perl": Program("libmail-imapclient-perl", "openssl", IMAP, shown="Mail::IMAPClient"),
    "perl-pop3": Program("perl", "openssl", POP3, shown="Perl Net::POP3", recipe="perl", needs=("libio-socket-ssl-perl",)),
    "ruby": Program("ruby", "openssl", IMAP, shown="Ruby net-imap", version="ruby -rnet/imap -e \"puts Net::IMAP.const_defined?(:VERSION, false) ? Net::IMAP::VERSION : RUBY_VERSION\""),
    "ruby-pop3": Program("ruby", "openssl", ("pop3s",), shown="Ruby net-pop", recipe="ruby", version="ruby -e \"puts RUBY_VERSION\""),
    "mail": Program("mailutils", "gnutls", ALL, shown="mailutils"),
    "goimap": Program("go:github.com/emersion/go-imap/v2@v2.0.0-beta.8", "Go", IMAP, shown="go-imap v2"),
    "goimap1": Program("go:github.com/emersion/go-imap@v1.2.1", "Go", IMAP, shown="go-imap v1"),
    "mxk": Program("go:github.com/mxk/go-imap@v0.0.0-20150429134902", "Go", IMAP, shown="mxk go-imap"),
    "imapflow": Program("npm:imapflow", "node", IMAP, shown="ImapFlow"),
    "imapflow1": Program("npm:imapflow1", "node", IMAP, shown="ImapFlow"),
    "node-imap": Program("npm:imap", "node", IMAP, shown="node imap"),
    "node-imap-fork": Program("npm:node-imap", "node", IMAP, shown="node-imap fork"),
    "node-pop3": Program("npm:node-pop3", "node", ("pop3s",)),
    "emailjs": Program("npm:emailjs-imap-client", "node", IMAP, shown="emailjs-imap-client"),
    "inbox": Program("npm:inbox", "node", ("imaps",), shown="node inbox"),
    "poplib": Program("npm:poplib", "unknown", POP3, shown="node poplib"),
    "mailpop3": Program("npm:mailpop3", "unknown", POP3, shown="node mailpop3"),
    "yapople": Program("npm:yapople", "node", POP3, shown="yapople"),
    "movemail": Program("mailutils", "gnutls", ALL, shown="mailutils movemail"),
    "aerc": Program("aerc", "Go", IMAP, answers={}),
    "gnus": Program("emacs-nox", "gnutls", ALL, shown="Gnus", answers={r"\(yes or no\)": "yes\r", r"\(y or n\)": "y"}, version="emacs --batch --eval \"(princ emacs-version)\""),
    "check": Program("monitoring-plugins-basic", "openssl", ("imaps", "pop3s"), shown="monitoring-plugins check_imap"),
    "imaptalk": Program("libmail-imaptalk-perl", "openssl", ("imaps",), shown="Mail::IMAPTalk"),
    "net-imap-simple": Program("libnet-imap-simple-perl", "openssl", ("imaps",), shown="Net::IMAP::Simple"),
    "net-imap-client": Program("libnet-imap-client-perl", "openssl", ("imaps",), shown="Net::IMAP::Client"),
    "pop3client": Program("libmail-pop3client-perl", "openssl", ("pop3s",), shown="Mail::POP3Client", apop=True),
    "mail-box": Program("libmail-box-pop3-perl", "openssl", POP3, shown="Mail::Box POP3", needs=("libio-socket-ssl-perl",), apop=True),
    "imaplib2": Program("python3-imaplib2", "openssl", IMAP, shown="Python imaplib2"),
    "imapclient": Program("python3-imapclient", "openssl", IMAP, shown="Python IMAPClient"),
    "imap-tools": Program("python3-imap-tools", "openssl", IMAP, shown="Python imap-tools"),
    "aioimaplib": Program("python3-aioimaplib", "openssl", ("imaps",), shown="Python aioimaplib"),
    "twisted": Program("python3-twisted", "openssl", ALL, shown="Twisted", needs=("python3-service-identity",)),
    "pullimap": Program("pullimap", "openssl", IMAP, shown="pullimap"),
    "horde": Program("php-horde-imap-client", "openssl", ALL, shown="Horde Imap_Client"),
    "net-imap": Program("php-net-imap", "openssl", ("imaps",), shown="PEAR Net_IMAP", roots=("bullseye",)),
    "roundcube": Program("roundcube-core", "openssl", IMAP, shown="Roundcube"),
    "phpmailer": Program("libphp-phpmailer", "openssl", ("pop3s",), shown="PHPMailer POP3"),
    "tcllib": Program("tcllib", "openssl", ("imaps", "pop3s"), shown="Tcllib", needs=("tcl-tls",)),
    "imapc": Program("dovecot-imapd", "openssl", IMAP, shown="Dovecot imapc", roots=("bullseye", "bookworm")),
    "uw-mailutil": Program("uw-mailutils", "openssl", ALL, shown="uw-mailutils", answers={"(?i)password:": "PASSWORD\r"}),
    "imtest": Program("cyrus-clients", "openssl", ALL, shown="Cyrus imtest"),
    "inc": Program("nmh", "openssl", ("pop3s",), shown="nmh inc"),
    "meli": Program("meli", "openssl", IMAP, answers={}),
    "himalaya": Program("himalaya", "rustls", IMAP),
    "wanderlust": Program("wl", "gnutls", ALL, shown="Wanderlust", needs=("emacs-nox",), answers={}),
    "mailfilter": Program("mailfilter", "openssl", POP3),
    "mailsync": Program("mailsync", "openssl", IMAP),
    "perdition": Program("perdition", "openssl", ALL, needs=("python3",)),
    "imapproxy": Program("imapproxy", "openssl", ("imap",), needs=("g++",)),
    "etpan": Program("libetpan-dev", "gnutls", ALL, shown="libEtPan", needs=("g++",), seconds=30),
    "vmime": Program("libvmime-dev", "gnutls", ALL, shown="VMime", needs=("g++",), seconds=90),
    "commons-net": Program("libcommons-net-java", "java", ALL, shown="Apache Commons Net", seconds=30, needs=("default-jdk-headless",)),
    "pop3c": Program("dovecot-pop3d", "openssl", ("pop3s",), shown="Dovecot pop3c", roots=("bullseye", "bookworm")),
    "imapc24": Program("dovecot-imapd", "openssl", IMAP, shown="Dovecot imapc", roots=("trixie", "forky")),
    "dovecot-proxy": Program("dovecot-imapd", "openssl", ALL, shown="Dovecot proxy", needs=("dovecot-pop3d", "python3"), roots=("bullseye", "bookworm")),
    "interimap": Program("interimap", "openssl", IMAP, shown="InterIMAP"),
    "cyradm": Program("cyrus-admin", "openssl", ("imap",), shown="Cyrus cyradm"),
    "hydra": Program("hydra", "openssl", ALL, apop=True),
    "medusa": Program("medusa", "openssl", ("imaps", "pop3s")),
    "ncrack": Program("ncrack", "openssl", ("imaps", "pop3s")),
    "javamail": Program("libmail-java", "java", ALL, shown="JavaMail", seconds=30, needs=("default-jdk-headless",)),
    "claws-mail": Program("claws-mail", "gnutls", ALL, apop=True, seconds=40, grace=1, needs=("xvfb", "xdotool")),
    "sylpheed": Program("sylpheed", "openssl", ALL, shown="Sylpheed", apop=True, seconds=40, grace=1, needs=("xvfb", "xdotool")),
    "balsa": Program("balsa", "gnutls", ALL, shown="Balsa", apop=True, seconds=50, grace=4, needs=("xvfb", "xdotool", "gnome-keyring")),
    "thunderbird": Program("thunderbird", "nss", ALL, shown="Thunderbird", seconds=50, grace=2, needs=("xvfb", "xdotool")),
    "evolution": Program("evolution", "gnutls", ALL, shown="Evolution", apop=True, ways=WAYS, seconds=50, grace=5, needs=("xvfb", "xdotool", "gnome-keyring")),
    "kmail": Program("kmail", "openssl", ALL, shown="KMail", apop=True, ways=WAYS, seconds=60, grace=1, needs=("xvfb", "xdotool", "akonadi-backend-sqlite", "gnome-keyring")),
    "geary": Program("geary", "gnutls", IMAP, shown="Geary", seconds=50, grace=1, needs=("xvfb", "xdotool", "gnome-keyring")),
}
