// Goimap logs in with go-imap, as a program written with it does.
package main

import (
	"crypto/tls"
	"fmt"
	"os"

	"github.com/emersion/go-imap/v2/imapclient"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "goimap:", err)
		os.Exit(1)
	}
}

func run() error {
	dial := imapclient.DialTLS
	if os.Getenv("SECURITY") == "starttls" {
		dial = imapclient.DialStartTLS
	}
	client, err := dial(os.Getenv("HOST")+":"+os.Getenv("PORT"), &imapclient.Options{
		TLSConfig: &tls.Config{MaxVersion: tls.VersionTLS12},
	})
	if err != nil {
		return fmt.Errorf("dialing: %w", err)
	}
	defer client.Close()
	if err := client.Login(os.Getenv("ACCOUNT"), os.Getenv("PASSWORD")).Wait(); err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	if _, err := client.Select("INBOX", nil).Wait(); err != nil {
		return fmt.Errorf("selecting: %w", err)
	}
	return client.Logout().Wait()
}
