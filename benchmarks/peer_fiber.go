package main

import (
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/extractors"
	"github.com/gofiber/fiber/v3/middleware/session"
	fiberredis "github.com/gofiber/storage/redis/v3"
	"github.com/redis/go-redis/v9"
	"github.com/valyala/fasthttp"
)

// Fiber runs on fasthttp, not on net/http, so it has a floor of its own.
var _ = register(
	Peer{Name: "bare/fiber", Kind: None, Open: func(Env) App {
		app := fiber.New()
		for _, work := range Workloads {
			app.Get("/"+string(work), func(c fiber.Ctx) error { return c.SendString("ok\n") })
		}
		return fiberApp(app, func() {})
	}},
	Peer{Name: "fiber/memory", Kind: Memory, Floor: "bare/fiber", Open: func(env Env) App {
		return openFiber(env, nil, func() {})
	}},
	Peer{Name: "fiber/redis", Kind: Redis, Floor: "bare/fiber", Open: func(env Env) App {
		client := redis.NewClient(&redis.Options{Addr: env.Redis})
		return openFiber(env, fiberredis.NewFromConnection(client), func() { client.Close() })
	}},
)

// openFiber uses the middleware, which loads and saves the session of every request.
func openFiber(env Env, storage fiber.Storage, closeStore func()) App {
	config := session.Config{
		Storage: storage, Extractor: extractors.FromCookie("sid"), CookieHTTPOnly: true,
		IdleTimeout: cookieLife * time.Second, // of the cookie too
	}
	if env.Sliding {
		config.IdleTimeout = idle * time.Second
	}
	middleware, store := session.NewWithStore(config)
	store.RegisterType(cart)
	app := fiber.New()
	app.Use(middleware)
	read := func(s *session.Middleware) bool { return s.Get("userId") == userID }
	handlers := map[Workload]func(*session.Middleware) bool{
		Anonymous: func(s *session.Middleware) bool { return s.Get("userId") == nil },
		Read:      read,
		Sliding:   read,
		Write: func(s *session.Middleware) bool {
			count, _ := s.Get("count").(int)
			s.Set("count", count+1)
			return true
		},
		Equal: func(s *session.Middleware) bool {
			s.Set("role", role)
			return true
		},
		Login: func(s *session.Middleware) bool {
			err := s.Regenerate()
			s.Set("userId", userID)
			s.Set("email", email)
			s.Set("role", role)
			s.Set("cart", cart)
			return err == nil
		},
	}
	app.Get("/"+string(Untouched), func(c fiber.Ctx) error { return c.SendString("ok\n") })
	for work, handler := range handlers {
		app.Get("/"+string(work), func(c fiber.Ctx) error {
			if !handler(session.FromContext(c)) {
				c.Status(fiber.StatusInternalServerError)
			}
			return c.SendString("ok\n")
		})
	}
	app.Get("/"+string(Show), func(c fiber.Ctx) error {
		s := session.FromContext(c)
		return show(c.Response().BodyWriter(), untyped(func(key string) any { return s.Get(key) }))
	})
	return fiberApp(app, closeStore)
}

// fiberApp leaves the choice of the handler to fiber's own router.
func fiberApp(app *fiber.App, closeStore func()) App {
	fast := map[Workload]fasthttp.RequestHandler{Show: app.Handler()}
	for _, work := range Workloads {
		fast[work] = fast[Show]
	}
	return App{Fast: fast, Close: closeStore}
}
