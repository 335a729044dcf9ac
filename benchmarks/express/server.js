// The peer "express": express-session with connect-redis. Run as
//
//   node server.js ADDRESS ADDRESS-OF-REDIS [sliding]
//
// It prints one line of JSON, {"Addr": "127.0.0.1:..."} with the port that it got, and ends
// with its standard input.

import { promisify } from 'node:util'
import { RedisStore } from 'connect-redis'
import express from 'express'
import session from 'express-session'
import { createClient } from 'redis'

const [addr, redis, sliding] = process.argv.slice(2)
const client = createClient({ url: `redis://${redis}` })
await client.connect()

const email = 'ada.lovelace@example.com'
const role = 'member'
const cart = Array.from({ length: 10 }, (_, i) => `item-${100001 + i}`)

const app = express()
app.use(session({
  name: 'sid',
  secret: 'a secret that is for the benchmarks alone',
  resave: false,
  saveUninitialized: false,
  rolling: sliding !== undefined,
  cookie: { maxAge: (sliding ? 60 * 60 : 24 * 60 * 60) * 1000 },
  store: new RedisStore({ client }),
}))

const answer = (res, ok) => res.status(ok ? 200 : 500).send('ok\n')
const read = (req, res) => answer(res, req.session.userId === 42)

app.get('/U', (req, res) => answer(res, true))
app.get('/A', (req, res) => answer(res, req.session.userId === undefined))
app.get('/R', read)
app.get('/S', read)
app.get('/W', (req, res) => {
  req.session.count = (req.session.count ?? 0) + 1
  answer(res, true)
})
app.get('/E', (req, res) => {
  req.session.role = role
  answer(res, true)
})
app.get('/N', async (req, res) => {
  await promisify(req.session.regenerate).call(req.session)
  Object.assign(req.session, { userId: 42, email, role, cart })
  answer(res, true)
})
app.get('/show', (req, res) => {
  const { userId = 0, email = '', role = '', cart = null, count } = req.session
  res.json({ userId, email, role, cart, count })
})

const [host, port] = addr.split(':')
const server = app.listen(Number(port), host, () => {
  console.log(JSON.stringify({ Addr: `127.0.0.1:${server.address().port}` }))
})
process.stdin.on('end', () => process.exit()).resume()
