// The Express app that node_test.go shares sessions with. APP_CONFIG is JSON:
//
//   redis    the URL of the server
//   store    the options of connect-redis's RedisStore, but for its client
//   session  the options of express-session, but for its store
//
// The app prints its port. It ends with its standard input, so it never outlives its test.

import { EventEmitter, once } from 'node:events'
import { promisify } from 'node:util'
import flash from 'connect-flash'
import { RedisStore } from 'connect-redis'
import express from 'express'
import session from 'express-session'
import passport from 'passport'
import { createClient } from 'redis'

const config = JSON.parse(process.env.APP_CONFIG)
const client = createClient({ url: config.redis })
await client.connect()
const store = new RedisStore({ ...config.store, client })

passport.serializeUser((user, done) => done(null, user.id))
passport.deserializeUser((id, done) => done(null, { id }))

// call is a method of req.session as a promise.
const call = (req, method) => promisify(req.session[method]).call(req.session)
const json = (res, value) => res.type('json').send(JSON.stringify(value) ?? '')

const app = express()
app.use(express.text({ type: () => true }))

// What concerns no session of the client's own.
app.get('/store', async (req, res) => {
  json(res, { all: await store.all(), length: await store.length(), ids: await store.ids() })
})
const gate = new EventEmitter()
let held = 0
app.get('/held', async (req, res) => {
  if (held === 0) await once(gate, 'held')
  res.end()
})
app.post('/release', (req, res) => {
  gate.emit('release')
  res.end()
})

app.use(session({ ...config.session, store }))
app.use(flash())
app.use(passport.session())

app.get('/id', (req, res) => res.send(req.sessionID))
app.get('/get/:name', (req, res) => json(res, req.session[req.params.name]))
app.post('/set/:name', (req, res) => {
  req.session[req.params.name] = JSON.parse(req.body)
  res.end()
})

app.post('/cookie', (req, res) => {
  Object.assign(req.session.cookie, JSON.parse(req.body))
  req.session.remembered = true // because a change of the cookie alone is none to express-session
  res.end()
})

// What only JavaScript has.
app.post('/javascript', async (req, res) => {
  Object.assign(req.session, {
    date: new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 678)),
    nothing: null,
    missing: undefined,
    nan: NaN,
    big: 2 ** 64,
    bigger: 1e21,
    small: 5e-324,
    half: '\ud83d', // of a surrogate pair
    buffer: Buffer.from('hi'),
  })
  await call(req, 'save')
  res.end()
})

app.post('/login', async (req, res) => {
  await call(req, 'regenerate')
  req.session.user = JSON.parse(req.body)
  await call(req, 'save')
  res.end()
})
app.post('/regenerate', async (req, res) => {
  await call(req, 'regenerate')
  await call(req, 'save')
  res.end()
})
app.post('/logout', async (req, res) => {
  await call(req, 'destroy')
  res.end()
})

// The formatting form: the other one calls util.isArray, which Node 23 no longer has.
app.post('/flash/:type', (req, res) => json(res, req.flash(req.params.type, '%s', req.body)))
app.post('/flash/:type/pop', (req, res) => json(res, req.flash(req.params.type)))

app.post('/passport', async (req, res) => {
  await promisify(req.logIn).call(req, { id: JSON.parse(req.body) }, { keepSessionInfo: 'keep' in req.query })
  res.end()
})
app.get('/passport', (req, res) => json(res, req.user))

// A slow request: its session is loaded, then it waits for /release.
app.post('/slow/:name', async (req, res) => {
  held++
  gate.emit('held')
  await once(gate, 'release')
  held--
  if ('reload' in req.query) await call(req, 'reload')
  if (!('read' in req.query)) req.session[req.params.name] = JSON.parse(req.body)
  res.end()
})

// Express hands an error to here; without the handler it would go to the client as HTML.
app.use((err, req, res, next) => {
  res.status(500).type('text').send(err.message)
})

const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.resume().on('end', () => process.exit())
