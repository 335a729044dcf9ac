package main

// The real express-session with connect-redis, as server.js in the folder express.
var _ = register(Peer{Name: "express/redis", Kind: Redis, Node: "express"})
