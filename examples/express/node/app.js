// The app that is there: login, logout and pages in Express, with express-session and
// connect-redis. It knows nothing of Go.
//
//   SESSION_SECRET  signs the cookie; several, the newest first and separated by commas.
//   REDIS_URL       keeps the sessions. Unset: redis://localhost:6379/0.
//   PORT            of localhost. Unset: 3000.
//   APP_ENV         "production" sends the cookie over TLS only. Unset: development.

import { scryptSync, timingSafeEqual } from 'node:crypto'
import { RedisStore } from 'connect-redis'
import express from 'express'
import session from 'express-session'
import { createClient } from 'redis'

const { SESSION_SECRET, REDIS_URL = 'redis://localhost:6379/0', PORT = '3000', APP_ENV = 'development' } = process.env
if (!SESSION_SECRET) stop('SESSION_SECRET is not set')
if (!URL.canParse(REDIS_URL)) stop('REDIS_URL is no URL')
if (!/^\d+$/.test(PORT)) stop(`PORT is "${PORT}"; use a number`)
if (!['development', 'production'].includes(APP_ENV)) stop(`APP_ENV is "${APP_ENV}"; use development or production`)

function stop(why) {
  console.error(why)
  process.exit(1)
}

const client = createClient({ url: REDIS_URL })
client.on('error', (err) => console.error('redis:', err.code ?? err.message))
await client.connect()

const app = express()
app.set('trust proxy', 'loopback') // whose X-Forwarded-Proto says whether there is TLS
app.use(express.json())
app.use(
  session({
    secret: SESSION_SECRET.split(','),
    name: 'shop.sid',
    cookie: { maxAge: 7 * 24 * 60 * 60 * 1000, sameSite: 'lax', secure: APP_ENV === 'production' },
    rolling: true,
    resave: false,
    saveUninitialized: false,
    store: new RedisStore({ client, prefix: 'shop:' }),
  }),
)

app.post('/login', (req, res, next) => {
  const user = check(req.body?.email, req.body?.password)
  if (!user) return answer(res.status(401), { error: 'wrong email or password' })
  req.session.regenerate((err) => {
    if (err) return next(err)
    req.session.user = user
    // Before the answer, because the next request may be one for Go.
    req.session.save((err) => (err ? next(err) : answer(res, user)))
  })
})

app.post('/logout', (req, res, next) => {
  req.session.destroy((err) => (err ? next(err) : res.status(204).end()))
})

app.get('/home', (req, res) => {
  const { user, theme = 'light' } = req.session
  if (!user) return answer(res.status(401), { error: 'not logged in' })
  answer(res, { hello: user.name, theme, from: 'Express' })
})

app.get('/account', showAccount)

app.post('/account', (req, res) => {
  if (!req.session.user) return answer(res.status(401), { error: 'not logged in' })
  const theme = req.body?.theme
  if (theme !== 'light' && theme !== 'dark') return answer(res.status(400), { error: 'the theme is light or dark' })
  req.session.theme = theme
  showAccount(req, res)
})

function showAccount(req, res) {
  const { user, theme = 'light' } = req.session
  if (!user) return answer(res.status(401), { error: 'not logged in' })
  answer(res, { name: user.name, theme, from: 'Express' })
}

// answer is res.json with a newline, for who reads it in a terminal.
function answer(res, body) {
  res.type('json').send(JSON.stringify(body) + '\n')
}

// The application's database.
const users = [
  { id: 1, email: 'ada@example.com', name: 'Ada', salt: 'a', hash: hash('analytical engine', 'a') },
  { id: 2, email: 'bob@example.com', name: 'Bob', salt: 'b', hash: hash("a builder's password", 'b') },
]

function hash(password, salt) {
  return scryptSync(password, salt, 32)
}

function check(email, password) {
  const user = users.find((u) => u.email === email)
  const same = timingSafeEqual(hash(String(password), user?.salt ?? ''), user?.hash ?? Buffer.alloc(32))
  return user && same && { id: user.id, name: user.name }
}

const server = app.listen(Number(PORT), 'localhost', (err) => {
  if (err) stop(err.message)
  console.log(`listening on http://localhost:${server.address().port}`)
})

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    server.close(() => client.close())
    server.closeIdleConnections()
  })
}
