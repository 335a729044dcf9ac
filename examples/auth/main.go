// Auth is a JSON API with login and logout.
//
// It is configured by the environment, and each variable may be unset:
//
//	SESSION_SECRET  signs the cookie: 32 bytes or more, as from openssl rand
//	                -base64 32. Several, the newest first and separated by
//	                commas, rotate it. Unset: a random one, with memory only.
//	REDIS_URL       keeps the sessions in Redis, as redis://localhost:6379/0.
//	                With rediss:// it talks TLS only. Unset: in memory.
//	REDIS_CA_FILE   has the certificates, as PEM, of the CAs that may vouch for
//	                the server of a rediss:// URL. Unset: those of the system.
//	PORT            listens on this port of all interfaces. Unset: 8080 of
//	                localhost alone.
//	APP_ENV         "development" sends the cookie without Secure, for browsers
//	                that do not trust http://localhost. Unset: production.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listening := func(url string) { log.Print("listening on ", url) }
	if err := run(ctx, os.LookupEnv, listening); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends, and then finishes the requests under way.
func run(ctx context.Context, lookupEnv func(string) (string, bool), listening func(url string)) error {
	options, err := options(lookupEnv)
	if err != nil {
		return err
	}
	sessions, err := session.New(options)
	if err != nil {
		return err
	}
	addr := "localhost:8080"
	if port, ok := lookupEnv("PORT"); ok {
		if port == "" {
			return errors.New("PORT is set and empty")
		}
		addr = ":" + port
	}
	server := &http.Server{Handler: newHandler(sessions, demoUsers()), ReadHeaderTimeout: 10 * time.Second}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	listening(fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port))

	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		timeout, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stopped <- server.Shutdown(timeout)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func options(lookupEnv func(string) (string, bool)) (session.Options, error) {
	options := session.Options{
		Cookie:       session.Cookie{MaxAge: 24 * time.Hour},
		ErrorHandler: sessionFailed,
	}
	// A variable that is set and empty is a mistake, which session.New refuses.
	if secrets, ok := lookupEnv("SESSION_SECRET"); ok {
		options.Secrets = strings.Split(secrets, ",")
	}
	config, err := redisOptions(lookupEnv)
	if err != nil {
		return options, err
	}
	if config != nil {
		options.Store = &session.RedisStore{Client: redis.NewClient(config)}
	}
	switch env, _ := lookupEnv("APP_ENV"); env {
	case "", "production":
	case "development":
		options.Cookie.Insecure = true
	default:
		return options, fmt.Errorf("APP_ENV is %q; use production or development", env)
	}
	return options, nil
}

// redisOptions returns nil if the sessions are not to be in Redis.
func redisOptions(lookupEnv func(string) (string, bool)) (*redis.Options, error) {
	var config *redis.Options
	if url, ok := lookupEnv("REDIS_URL"); ok {
		var err error
		if config, err = redis.ParseURL(url); err != nil {
			// Not err, which may have the password.
			return nil, errors.New("REDIS_URL is not as redis://user:password@localhost:6379/0; write a / in the password as %2F, and so on")
		}
	}
	file, ok := lookupEnv("REDIS_CA_FILE")
	if !ok {
		return config, nil
	}
	if file == "" {
		return nil, errors.New("REDIS_CA_FILE is set and empty")
	}
	if config == nil || config.TLSConfig == nil {
		return nil, errors.New("REDIS_CA_FILE is set, and REDIS_URL does not begin with rediss://")
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("REDIS_CA_FILE: %w", err)
	}
	config.TLSConfig.RootCAs = x509.NewCertPool()
	if !config.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("REDIS_CA_FILE: no certificate in %s", file)
	}
	return config, nil
}

// sessionFailed answers a request whose session the store could not load or save.
// The session package has logged why, and sets the status.
func sessionFailed(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintln(w, `{"error":"the session could not be read or saved; try again"}`)
}
