package expressjs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
)

// A stepper is what one process sees of a Redis that several have: something happens before
// one of its calls.
type stepper struct {
	*redisMap
	calls  int
	before map[int]func()
	dead   int    // the process dies at that call; 0 for never
	made   bool   // the call at which it dies reaches Redis
	loses  int    // the reply of that call is lost; 0 for none
	onSwap func() // before each CompareAndSwap
}

// The calls of a request that renews a session, and does nothing else.
const (
	renewLoads = 1 + iota
	renewAnnounces
	renewPoints
	renewCopies
	renewMoves
	renewed
)

// step reports whether the call is made, and whether its reply comes.
func (s *stepper) step() (made, answered bool) {
	s.calls++
	if do := s.before[s.calls]; do != nil {
		do()
	}
	alive := s.dead == 0 || s.calls < s.dead
	return alive || s.made && s.calls == s.dead, alive && s.calls != s.loses
}

func (s *stepper) Get(ctx context.Context, key string) *redis.StringCmd {
	if _, alive := s.step(); !alive {
		return redis.NewStringResult("", errDown)
	}
	return s.redisMap.Get(ctx, key)
}

func (s *stepper) SetNX(ctx context.Context, key string, value any, ttl time.Duration) *redis.BoolCmd {
	made, alive := s.step()
	if made {
		if cmd := s.redisMap.SetNX(ctx, key, value, ttl); alive {
			return cmd
		}
	}
	return redis.NewBoolResult(false, errDown)
}

func (s *stepper) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if s.onSwap != nil {
		s.calls++
		s.onSwap()
		s.calls--
	}
	made, alive := s.step()
	if made {
		if cmd := s.redisMap.EvalSha(ctx, sha, keys, args...); alive {
			return cmd
		}
	}
	return redis.NewCmdResult(nil, errDown)
}

// A stage is a session, the process in which it is renewed, and another.
type stage struct {
	*stepper
	here, there *session.Manager
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{stepper: &stepper{
		redisMap: withRecord(`{"cookie":{},"userId":"u1","n":0}`), before: make(map[int]func()),
	}}
	s.here, _ = newShared(t, s.stepper, nil)
	s.there, _ = newShared(t, s.redisMap, nil)
	return s
}

// atPoints runs the test for each call of a renewal, and after it, with each grace.
func atPoints(t *testing.T, first int, test func(t *testing.T, s *stage, point int, renew func(*session.Session), isOpen bool)) {
	for name, renew := range renewals {
		for point := first; point <= renewed; point++ {
			timedRun(t, fmt.Sprintf("%s, before call %d", name, point), func(t *testing.T) {
				test(t, newStage(t), point, renew, point < renewed || name == "grace")
			})
		}
	}
}

// renew makes the renewal, and has something happen before that call of it, or after the last.
func (s *stage) renew(t *testing.T, renew func(*session.Session), point int, do func()) *http.Response {
	t.Helper()
	s.before[point] = do
	response := ask(s.here, testCookie, renew)
	if point == renewed {
		do()
	}
	return response
}

// The old cookie opens the session until it has moved, and then for the grace.
func TestOldCookieAtEveryPoint(t *testing.T) {
	atPoints(t, renewAnnounces, func(t *testing.T, s *stage, point int, renew func(*session.Session), isOpen bool) {
		user, status, n := "", http.StatusServiceUnavailable, 0
		if isOpen {
			user, status, n = "u1", http.StatusOK, 1
		}
		response := s.renew(t, renew, point, func() {
			expect(t, "user of a GET", userOf(s.there, testCookie), user)
			change := ask(s.there, testCookie, count)
			expect(t, "status of a change", change.StatusCode, status)
			expect(t, "its cookies", len(change.Cookies()), 0)
		})
		expect(t, "status", response.StatusCode, http.StatusOK)
		cookie := newCookie(t, response)
		expect(t, "n", countOf(s.there, cookie), n)
		ask(s.there, testCookie, destroy)
		expect(t, "user after the logout", userOf(s.there, cookie), "")
		expectNoCopy(t, s.redisMap)
	})
}

// A request that was let in before the session moved, and changes it after, does so where it is
// now; without a grace it fails.
func TestLetInAtEveryPoint(t *testing.T) {
	for how, change := range map[string]func(s *session.Session){
		"saves": count, "reloads": func(s *session.Session) { _ = s.Reload(); count(s) },
		"begins its own renewal": inOrder(count, renewGrace),
	} {
		atPoints(t, renewAnnounces, func(t *testing.T, s *stage, point int, renew func(*session.Session), isOpen bool) {
			var late *http.Response
			gone, let, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			response := s.renew(t, renew, point, func() {
				if !isOpen {
					close(done)
					return
				}
				go func() {
					defer close(done)
					late = ask(s.there, testCookie, func(s *session.Session) {
						expect(t, "user", userKey.Get(s), "u1")
						close(let)
						<-gone
						change(s)
					})
				}()
				<-let
			})
			close(gone)
			if <-done; late == nil {
				return
			}
			status, n := http.StatusOK, 1
			if userOf(s.there, testCookie) == "" { // there was no grace
				status, n = http.StatusServiceUnavailable, 0
			}
			expect(t, how+": status", late.StatusCode, status)
			expect(t, how+": cookies", len(late.Cookies()), 0)
			expect(t, how+": n", countOf(s.there, newCookie(t, response)), n)
		})
	}
}

// A grace ends to the millisecond. From then on the cookie is one that nobody knows. Without
// a grace, and after a second renewal, it is worthless for a minute, and then the same.
func TestGraceEnds(t *testing.T) {
	const minute = time.Minute
	for name, tt := range map[string]struct {
		renewals []time.Duration // each a second after the one before
		opens    time.Duration   // it opens the session until then, since the first
		until    time.Duration   // it is worthless until then
	}{
		"grace":            {[]time.Duration{grace}, grace, grace},
		"a long one":       {[]time.Duration{5 * minute}, 5 * minute, 5 * minute},
		"none":             {[]time.Duration{0}, 0, minute},
		"renewed again":    {[]time.Duration{grace, grace}, time.Second, minute + time.Second},
		"without grace":    {[]time.Duration{grace, 0}, time.Second, minute + time.Second},
		"late":             {[]time.Duration{time.Second / 2, 0}, time.Second / 2, time.Second / 2},
		"three":            {[]time.Duration{5 * minute, grace, 0}, time.Second, minute + time.Second},
		"none, then again": {[]time.Duration{0, grace}, 0, minute},
	} {
		timedRun(t, name, func(t *testing.T) {
			s := newStage(t)
			start, cookie := time.Now(), testCookie
			check := func(after time.Duration) {
				time.Sleep(time.Until(start.Add(after)))
				user, status, cookies := "", http.StatusOK, 1
				switch {
				case after < tt.opens:
					user, cookies = "u1", 0
				case after < tt.until:
					status, cookies = http.StatusServiceUnavailable, 0
				}
				expect(t, fmt.Sprint("user after ", after), userOf(s.there, testCookie), user)
				response := ask(s.there, testCookie, count)
				expect(t, fmt.Sprint("status after ", after), response.StatusCode, status)
				expect(t, fmt.Sprint("cookies after ", after), len(response.Cookies()), cookies)
			}
			for i, d := range tt.renewals {
				time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second)))
				cookie = newCookie(t, ask(s.here, cookie, func(s *session.Session) { s.Renew(d) }))
				if i < len(tt.renewals)-1 {
					check(time.Duration(i)*time.Second + 999*time.Millisecond)
				}
			}
			last := time.Since(start)
			times := []time.Duration{last, tt.opens - time.Millisecond, tt.opens, tt.until - time.Millisecond, tt.until, tt.until + 10*minute}
			slices.Sort(times)
			for _, after := range times {
				if after >= last {
					check(after)
				}
			}
			expect(t, "user of the last cookie", userOf(s.there, cookie), "u1")
		})
	}
}

// However often a session was renewed, an old cookie costs the same.
func TestOldCookieCostsTheSame(t *testing.T) {
	timed(func(t *testing.T) {
		s := newStage(t)
		cookie := testCookie
		for range 900 {
			cookie = newCookie(t, ask(s.there, cookie, renewGrace))
		}
		s.gets = 0
		expect(t, "user", userOf(s.there, testCookie), "")
		if s.gets > 4 {
			t.Errorf("%d calls", s.gets)
		}
		statuses := make(chan int)
		for range 50 {
			go func() { statuses <- ask(s.there, testCookie, readUser).StatusCode }()
		}
		for range 50 {
			expect(t, "status of one of fifty", <-statuses, http.StatusOK)
		}
		ask(s.there, testCookie, destroy)
		expect(t, "user after a logout with the first cookie", userOf(s.there, cookie), "")
		expectNoCopy(t, s.redisMap)
	})(t)
}

// A deletion ends the session with every cookie that it ever had.
func TestLogoutWithAReplacedCookie(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *stage, cookie string){
		"Destroy":    func(_ *testing.T, s *stage, cookie string) { ask(s.there, cookie, destroy) },
		"a look":     func(_ *testing.T, s *stage, cookie string) { ask(s.there, cookie, inOrder(readUser, destroy)) },
		"Regenerate": func(_ *testing.T, s *stage, cookie string) { ask(s.there, cookie, (*session.Session).Regenerate) },
		"Manager.Destroy": func(t *testing.T, s *stage, cookie string) {
			if err := s.there.Destroy(t.Context(), sidIn(strings.TrimPrefix(cookie, "connect.sid="))); err != nil {
				t.Error(err)
			}
		},
	} {
		for kind, renew := range renewals {
			for _, times := range []int{1, 2, 5} {
				for _, after := range []time.Duration{0, grace - time.Millisecond, grace, time.Hour} {
					timedRun(t, fmt.Sprint(name, ", ", kind, ", ", times, " times, after ", after), func(t *testing.T) {
						for with := range times + 1 {
							s := newStage(t)
							cookies := []string{testCookie}
							for range times {
								cookies = append(cookies, newCookie(t, ask(s.here, cookies[len(cookies)-1], renew)))
							}
							time.Sleep(after)
							end(t, s, cookies[with])
							for i, cookie := range cookies {
								expect(t, fmt.Sprint("user of cookie ", i, " after a logout with ", with), userOf(s.there, cookie), "")
							}
							expectNoCopy(t, s.redisMap)
						}
					})
				}
			}
		}
	}
}

// A logout that comes at any point of a renewal is final.
func TestLogoutAtEveryPoint(t *testing.T) {
	atPoints(t, renewAnnounces, func(t *testing.T, s *stage, point int, renew func(*session.Session), _ bool) {
		response := s.renew(t, renew, point, func() {
			expect(t, "status of the logout", ask(s.there, testCookie, destroy).StatusCode, http.StatusOK)
		})
		expect(t, "status", response.StatusCode, http.StatusOK)
		for _, c := range response.Cookies() {
			expect(t, "user of the new cookie", userOf(s.there, c.Name+"="+c.Value), "")
		}
		expect(t, "cookies", len(response.Cookies()) > 0, point == renewed)
		expect(t, "user of the old cookie", userOf(s.there, testCookie), "")
		expectNoCopy(t, s.redisMap)
	})
}

// Two renewals at once. The second comes, or goes on, at any point of the first, which waits
// for it as if its process had stopped. One of them has the session then. Of the other's
// request nothing is lost that was answered 200, and the cookie that a renewal without
// grace was answered with is the only one that opens the session.
func TestTwoRenewalsAtEveryPoint(t *testing.T) {
	for name, second := range renewals {
		for _, letIn := range []bool{false, true} { // the second, before the first begins
			atPoints(t, renewAnnounces, func(t *testing.T, s *stage, point int, first func(*session.Session), isOpen bool) {
				what := fmt.Sprintf("then %s, let in before %v: ", name, letIn)
				let, let2, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
				var b *http.Response
				begin := func() {
					go func() {
						defer close(done)
						b = ask(s.there, testCookie, func(s *session.Session) {
							readUser(s)
							close(let)
							<-let2
							inOrder(count, second)(s)
						})
					}()
					<-let
				}
				if letIn {
					begin()
				}
				a := s.renew(t, inOrder(count, first), point, func() {
					if !letIn {
						begin()
					}
					close(let2)
					<-done
				})
				var cookies []string
				counted := 0
				for _, response := range []*http.Response{a, b} {
					for _, c := range response.Cookies() {
						cookies = append(cookies, c.Name+"="+c.Value)
					}
					if response.StatusCode == http.StatusOK {
						counted++
					} else {
						expect(t, what+"status", response.StatusCode, http.StatusServiceUnavailable)
					}
				}
				if len(cookies) != 1 {
					t.Fatalf("%s%d cookies, statuses %d and %d", what, len(cookies), a.StatusCode, b.StatusCode)
				}
				expect(t, what+"user", userOf(s.there, cookies[0]), "u1")
				if n := countOf(s.there, cookies[0]); n < counted {
					t.Errorf("%sn is %d after %d answers of 200", what, n, counted)
				}
				// The first is the first, unless it stood still after it began and the other came then.
				firstWins := point == renewed || point > renewAnnounces && letIn && isZero(first)
				expect(t, what+"the first has the cookie", len(a.Cookies()) > 0, firstWins)
				loser, lost := b, second
				if !firstWins {
					loser, lost = a, first
				}
				status := http.StatusOK
				if isZero(lost) || firstWins && isZero(first) {
					status = http.StatusServiceUnavailable
				}
				if !isOpen && !letIn { // it was anonymous from the start
					status = http.StatusServiceUnavailable
				}
				if !firstWins && isZero(second) && point == renewAnnounces { // the first had saved nothing yet
					status = http.StatusServiceUnavailable
				}
				expect(t, what+"status of the other", loser.StatusCode, status)
				old := "u1"
				if firstWins && isZero(first) || !firstWins && isZero(second) {
					old = ""
				}
				expect(t, what+"user of the old cookie", userOf(s.there, testCookie), old)
				ask(s.there, testCookie, destroy)
				expectNoCopy(t, s.redisMap)
			})
		}
	}
}

// isZero reports whether a renewal has no grace.
func isZero(renew func(*session.Session)) bool {
	return fmt.Sprintf("%p", renew) == fmt.Sprintf("%p", renewals["no grace"])
}

// A renewal that gets on is waited for: the first is the first.
func TestSecondRenewalWaits(t *testing.T) {
	for name, second := range renewals {
		atPoints(t, renewPoints, func(t *testing.T, s *stage, point int, first func(*session.Session), isOpen bool) {
			if !isOpen {
				return
			}
			let, done := make(chan struct{}), make(chan struct{})
			var b *http.Response
			a := s.renew(t, first, point, func() {
				go func() {
					defer close(done)
					b = ask(s.there, testCookie, func(s *session.Session) {
						readUser(s)
						close(let)
						inOrder(count, second)(s)
					})
				}()
				<-let
				time.Sleep(10 * time.Millisecond) // the call takes so long
			})
			<-done
			status, n := http.StatusOK, 1
			if isZero(first) || isZero(second) {
				status, n = http.StatusServiceUnavailable, 0
			}
			expect(t, name+": status of the second", b.StatusCode, status)
			expect(t, name+": its cookies", len(b.Cookies()), 0)
			expect(t, name+": n", countOf(s.there, newCookie(t, a)), n)
		})
	}
}

// A request that was let in before many renewals saves where the session is now.
func TestLetInBeforeManyRenewals(t *testing.T) {
	timed(func(t *testing.T) {
		s := newStage(t)
		cookie := testCookie
		for how, end := range map[string]func(s *session.Session){"saves": doNothing, "reloads": func(s *session.Session) { _ = s.Reload() }} {
			before := countOf(s.there, cookie)
			response := ask(s.there, cookie, func(of *session.Session) {
				count(of)
				for range 5 {
					cookie = newCookie(t, ask(s.here, cookie, renewGrace))
				}
				if end(of); how == "reloads" {
					count(of)
				}
			})
			expect(t, how+": status", response.StatusCode, http.StatusOK)
			expect(t, how+": cookies", len(response.Cookies()), 0)
			expect(t, how+": n", countOf(s.there, cookie), before+1)
		}
	})(t)
}

// A renewal that stood still for so long that another, without a grace, has begun in its
// place does not take it back, also where that one stands still too, or has died.
func TestAnnouncementWithoutGraceStands(t *testing.T) {
	for name, first := range renewals {
		for point := renewPoints; point <= renewMoves; point++ {
			timedRun(t, fmt.Sprint(name, ", before call ", point), func(t *testing.T) {
				s := newStage(t)
				dies := &stepper{redisMap: s.redisMap}
				there, _ := newShared(t, dies, nil)
				response := s.renew(t, inOrder(count, first), point, func() {
					dies.onSwap = func() { dies.dead, dies.made = dies.calls, true } // it announces itself
					expect(t, "status of the one that dies", ask(there, testCookie, renewNow).StatusCode, http.StatusServiceUnavailable)
					time.Sleep(300 * time.Millisecond)
				})
				status := http.StatusOK
				if isZero(first) {
					status = http.StatusServiceUnavailable
				}
				expect(t, "status", response.StatusCode, status)
				expect(t, "cookies", len(response.Cookies()), 0)
				expect(t, "user", userOf(s.there, testCookie), "u1")
				again := newCookie(t, ask(s.there, testCookie, renewNow))
				expect(t, "user of the next renewal", userOf(s.there, again), "u1")
				expect(t, "user of the old cookie", userOf(s.there, testCookie), "")
			})
		}
	}
}

// A renewal whose place another has taken, which gets on, leaves it to it.
func TestOvertakenByOneThatGetsOn(t *testing.T) {
	for name, second := range renewals {
		for point := renewPoints; point <= renewMoves; point++ {
			timedRun(t, fmt.Sprint(name, ", before call ", point), func(t *testing.T) {
				s := newStage(t)
				slow := &stepper{redisMap: s.redisMap}
				there, _ := newShared(t, slow, nil)
				var b *http.Response
				done, announced := make(chan struct{}), make(chan struct{})
				a := s.renew(t, inOrder(count, renewGrace), point, func() {
					slow.onSwap = func() {
						slow.onSwap = nil
						slow.before = map[int]func(){slow.calls + 1: func() {
							close(announced)
							time.Sleep(100 * time.Millisecond)
						}}
					}
					go func() {
						defer close(done)
						b = ask(there, testCookie, inOrder(count, second))
					}()
					<-announced
				})
				<-done
				expect(t, "status of the first", a.StatusCode, http.StatusOK)
				expect(t, "cookies of the first", len(a.Cookies()), 0)
				expect(t, "status of the second", b.StatusCode, http.StatusOK)
				expect(t, "n", countOf(s.there, newCookie(t, b)), 2)
			})
		}
	}
}

// A renewal whose announcement was made, and the reply lost, and in whose place another has
// begun and died, does not go on with that one.
func TestLostAnnouncementIsTakenOver(t *testing.T) {
	for name, first := range renewals {
		timedRun(t, name, func(t *testing.T) {
			s := newStage(t)
			dies := &stepper{redisMap: s.redisMap}
			dies.onSwap = func() { dies.dead, dies.made = dies.calls, true }
			there, _ := newShared(t, dies, nil)
			s.loses = renewAnnounces
			s.before[renewAnnounces+1] = func() { ask(there, testCookie, renewGrace) }
			response := ask(s.here, testCookie, inOrder(count, first))
			status := http.StatusOK
			if isZero(first) {
				status = http.StatusServiceUnavailable
			}
			expect(t, "status", response.StatusCode, status)
			expect(t, "cookies", len(response.Cookies()), 0)
			time.Sleep(time.Hour) // longer than any grace
			expect(t, "user", userOf(s.there, testCookie), "u1")
			expect(t, "n", countOf(s.there, testCookie), 1)
		})
	}
}

// Express may save, while a renewal is under way, what it loaded before Go ever saved. The
// renewal goes on, and who was let in before it is not let in again.
func TestExpressDropsTheBookkeepingDuringARenewal(t *testing.T) {
	for point := renewCopies; point <= renewMoves; point++ {
		timedRun(t, fmt.Sprint(point), func(t *testing.T) {
			s := newStage(t)
			gone, let, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			var late *http.Response
			s.before[renewPoints] = func() {
				go func() {
					defer close(done)
					late = ask(s.there, testCookie, func(s *session.Session) {
						readUser(s)
						close(let)
						<-gone
						count(s)
					})
				}()
				<-let
			}
			response := s.renew(t, renewNow, point, func() {
				s.keys["sess:"+testSid] = redisValue{`{"cookie":{},"userId":"u2","n":0}`, time.Hour}
			})
			close(gone)
			<-done
			cookie := newCookie(t, response)
			expect(t, "status of who was let in before", late.StatusCode, http.StatusServiceUnavailable)
			expect(t, "user", userOf(s.there, cookie), "u2")
			text := s.keys["sess:"+sidIn(strings.TrimPrefix(cookie, "connect.sid="))].text
			expect(t, "its name is kept", strings.Contains(text, `"origin":"`+testSid+`"`), true)
		})
	}
}

// A request that others have renewed without a grace, after it had announced its own
// renewal, saves nothing more.
func TestOvertakenInTheMidstOfARequest(t *testing.T) {
	for point := renewPoints; point <= renewMoves; point++ {
		timedRun(t, fmt.Sprint(point), func(t *testing.T) {
			s := newStage(t)
			var cookie string
			s.before[point] = func() { cookie = newCookie(t, ask(s.there, testCookie, renewNow)) }
			response := ask(s.here, testCookie, func(s *session.Session) {
				inOrder(count, renewGrace)(s)
				_ = s.Save()
				userKey.Set(s, "somebody else")
			})
			expect(t, "status", response.StatusCode, http.StatusServiceUnavailable)
			expect(t, "cookies", len(response.Cookies()), 0)
			expect(t, "user", userOf(s.there, cookie), "u1")
			expect(t, "n", countOf(s.there, cookie), 1)
		})
	}
}

// A process dies at any call of a renewal, before or after Redis has made it. Until the
// session has moved the old cookie opens it, and renews it again at once; after that the
// cookie is a replaced one. A logout with it ends the session in any case.
func TestCrashAtEveryPoint(t *testing.T) {
	for _, made := range []bool{false, true} {
		for name, again := range renewals {
			atPoints(t, renewAnnounces, func(t *testing.T, s *stage, point int, renew func(*session.Session), _ bool) {
				if point == renewed {
					return
				}
				what := fmt.Sprintf("made %v, then %s: ", made, name)
				s.dead, s.made = point, made
				response := ask(s.here, testCookie, renew)
				expect(t, what+"status", response.StatusCode, http.StatusServiceUnavailable)
				expect(t, what+"cookies", len(response.Cookies()), 0)

				hasMoved := made && point == renewMoves
				response = ask(s.there, testCookie, inOrder(count, again))
				switch {
				case !hasMoved:
					expect(t, what+"status of another", response.StatusCode, http.StatusOK)
					cookie := newCookie(t, response)
					expect(t, what+"user", userOf(s.there, cookie), "u1")
					expect(t, what+"n", countOf(s.there, cookie), 1)
					user := "u1"
					if isZero(again) {
						user = ""
					}
					expect(t, what+"user of the old cookie", userOf(s.there, testCookie), user)
				case isZero(renew) || isZero(again):
					expect(t, what+"status of another", response.StatusCode, http.StatusServiceUnavailable)
				default:
					expect(t, what+"status of another", response.StatusCode, http.StatusOK)
					expect(t, what+"its cookies", len(response.Cookies()), 0)
				}
				time.Sleep(time.Hour)
				ask(s.there, testCookie, count) // as with any unknown cookie
				ask(s.there, testCookie, destroy)
				open := 0
				for _, v := range s.keys {
					open += strings.Count(v.text, `"userId":"u1"`)
				}
				// What a dead process has copied may be left. Nobody has its cookie.
				if most := map[bool]int{true: 1}[!hasMoved && (point == renewMoves || made && point == renewCopies)]; open > most {
					t.Errorf("%s%d copies are left", what, open)
				}
			})
		}
	}
}

// A change that is answered 200 is made once, also where replies are lost at any point of a
// renewal that is under way in another process, and of the renewal itself.
func TestLostReplyDuringARenewal(t *testing.T) {
	atPoints(t, renewAnnounces, func(t *testing.T, s *stage, point int, renew func(*session.Session), isOpen bool) {
		if !isOpen {
			return
		}
		lossy := &lossy{redisMap: s.redisMap, lose: 1}
		there, _ := newShared(t, lossy, nil)
		response := s.renew(t, inOrder(count, renew), point, func() {
			change := ask(there, testCookie, count)
			expect(t, "status of a change", change.StatusCode, http.StatusOK)
			expect(t, "replies to lose", lossy.lose, 0)
		})
		expect(t, "status", response.StatusCode, http.StatusOK)
		expect(t, "n", countOf(s.there, newCookie(t, response)), 2)
	})
	for lost := range 4 {
		for name, renew := range renewals {
			timedRun(t, fmt.Sprintf("%s, reply %d", name, lost), func(t *testing.T) {
				s := newStage(t)
				drops := &dropping{redisMap: s.redisMap, at: lost}
				m, _ := newShared(t, drops, nil)
				response := ask(m, testCookie, inOrder(count, renew))
				expect(t, "status", response.StatusCode, http.StatusOK)
				expect(t, "n", countOf(m, newCookie(t, response)), 1)
				if drops.at >= 0 {
					t.Error("no reply was lost")
				}
			})
		}
	}
}

// A dropping Redis makes a write and says that it could not.
type dropping struct {
	*redisMap
	at int
}

func (d *dropping) drops() bool { d.at--; return d.at == -1 }

func (d *dropping) SetNX(ctx context.Context, key string, value any, ttl time.Duration) *redis.BoolCmd {
	if cmd := d.redisMap.SetNX(ctx, key, value, ttl); !d.drops() {
		return cmd
	}
	return redis.NewBoolResult(false, errors.New("connection reset"))
}

func (d *dropping) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if cmd := d.redisMap.EvalSha(ctx, sha, keys, args...); !d.drops() {
		return cmd
	}
	return redis.NewCmdResult(nil, errors.New("connection reset"))
}
