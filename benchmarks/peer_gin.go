package main

import (
	"net/http"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"
	"github.com/gin-contrib/sessions/memstore"
	"github.com/gin-contrib/sessions/redis"
	"github.com/gin-gonic/gin"
)

var _ = register(
	Peer{Name: "gin/memory", Kind: Memory, Open: func(Env) App { return openGin(memstore.NewStore([]byte(secret))) }},
	Peer{Name: "gin/redis", Kind: Redis, Open: func(env Env) App {
		store, err := redis.NewStore(connections, "tcp", env.Redis, "", "", []byte(secret))
		if err != nil {
			panic(err)
		}
		return openGin(store)
	}},
	Peer{Name: "gin/cookie", Kind: Cookie, Open: func(Env) App { return openGin(cookie.NewStore([]byte(secret))) }},
)

// openGin has no use for Env.Sliding: gin prolongs a session by saving it, which it does only
// if something was set.
func openGin(store sessions.Store) App {
	store.Options(sessions.Options{Path: "/", MaxAge: cookieLife, HttpOnly: true})
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.Use(sessions.Sessions("sid", store))
	handlers := map[Workload]func(sessions.Session) bool{
		Anonymous: func(s sessions.Session) bool { return s.Get("userId") == nil },
		Read:      func(s sessions.Session) bool { return s.Get("userId") == userID },
		Sliding: func(s sessions.Session) bool {
			id := s.Get("userId")
			s.Set("userId", id)
			return s.Save() == nil && id == userID
		},
		Write: func(s sessions.Session) bool {
			count, _ := s.Get("count").(int)
			s.Set("count", count+1)
			return s.Save() == nil
		},
		Equal: func(s sessions.Session) bool {
			s.Set("role", role)
			return s.Save() == nil
		},
		Login: func(s sessions.Session) bool {
			s.Set("userId", userID)
			s.Set("email", email)
			s.Set("role", role)
			s.Set("cart", cart)
			return s.Save() == nil
		},
	}
	engine.GET("/"+string(Untouched), func(c *gin.Context) { answer(c.Writer, true) })
	for work, handler := range handlers {
		engine.GET("/"+string(work), func(c *gin.Context) { answer(c.Writer, handler(sessions.Default(c))) })
	}
	engine.GET("/"+string(Show), func(c *gin.Context) {
		s := sessions.Default(c)
		show(c.Writer, untyped(func(key string) any { return s.Get(key) }))
	})
	app := App{HTTP: map[Workload]http.Handler{Show: engine}, Close: func() {}}
	for _, work := range Workloads {
		app.HTTP[work] = engine
	}
	return app
}
