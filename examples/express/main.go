// Express shows the way from an Express app to Go, route by route. It answers the routes that
// have moved, and passes all other requests on to the Express app in node/. Both have the same
// sessions.
//
// It is configured by the environment:
//
//	SESSION_SECRET  signs the cookie, in both programs. Several, the newest first
//	                and separated by commas, rotate it. It has to be set.
//	REDIS_URL       keeps the sessions, for both. Unset: redis://localhost:6379/0.
//	EXPRESS_URL     is where the Express app listens. Unset: http://localhost:3000.
//	PORT            listens on this port of all interfaces. Unset: 8080 of
//	                localhost alone.
//	APP_ENV         "production" sends the cookie over TLS only, which ends before
//	                this program. Unset: development.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
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
	c, err := configure(lookupEnv)
	if err != nil {
		return err
	}
	client := redis.NewClient(c.redis)
	defer client.Close()
	options, err := sessionOptions(c.secrets, client, c.production).Session()
	if err != nil {
		return err
	}
	options.ErrorHandler = sessionFailed
	sessions, err := session.New(options)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: newHandler(sessions, c.express, c.production), ReadHeaderTimeout: 10 * time.Second}
	listener, err := net.Listen("tcp", c.addr)
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

type config struct {
	secrets    []string
	redis      *redis.Options
	express    *url.URL
	addr       string
	production bool
}

func configure(lookupEnv func(string) (string, bool)) (c config, err error) {
	env := func(name, otherwise string) string {
		if value, ok := lookupEnv(name); ok {
			return value
		}
		return otherwise
	}
	secrets, ok := lookupEnv("SESSION_SECRET")
	if !ok {
		return c, errors.New("SESSION_SECRET is not set; it is that of the Express app")
	}
	c.secrets = strings.Split(secrets, ",")
	if c.redis, err = redis.ParseURL(env("REDIS_URL", "redis://localhost:6379/0")); err != nil {
		// Not err, which may have the password.
		return c, errors.New("REDIS_URL is not as redis://user:password@localhost:6379/0; write a / in the password as %2F, and so on")
	}
	expressURL := env("EXPRESS_URL", "http://localhost:3000")
	if c.express, err = url.Parse(expressURL); err != nil || c.express.Host == "" || c.express.Scheme != "http" && c.express.Scheme != "https" {
		return c, fmt.Errorf("EXPRESS_URL is %q; use one as http://localhost:3000", expressURL)
	}
	c.addr = "localhost:8080"
	if port, ok := lookupEnv("PORT"); ok {
		if port == "" {
			return c, errors.New("PORT is set and empty")
		}
		c.addr = ":" + port
	}
	switch env := env("APP_ENV", "development"); env {
	case "development":
	case "production":
		c.production = true
	default:
		return c, fmt.Errorf("APP_ENV is %q; use development or production", env)
	}
	return c, nil
}

// sessionFailed answers a request whose session the store could not load or save.
// The session package has logged why, and sets the status.
func sessionFailed(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintln(w, `{"error":"the session could not be read or saved; try again"}`)
}
