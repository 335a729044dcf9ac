package main

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
)

// A user can log in. The first role is the one that a login starts with.
type user struct {
	ID    int64
	Email string
	Roles []string
	salt  []byte
	hash  []byte
}

// users stands for the application's database.
type users struct {
	byEmail map[string]user
	nobody  user // is checked where there is no user, so that it takes as long
}

func demoUsers() *users {
	us := &users{byEmail: make(map[string]user), nobody: newUser(0, "", rand.Text())}
	for _, u := range []user{
		newUser(1, "ada@example.com", "analytical engine", "user", "admin"),
		newUser(2, "bob@example.com", "a builder's password", "user"),
	} {
		us.byEmail[u.Email] = u
	}
	return us
}

func newUser(id int64, email, password string, roles ...string) user {
	salt := make([]byte, 16)
	rand.Read(salt)
	return user{id, email, roles, salt, hashPassword(password, salt)}
}

// hashPassword follows OWASP's figure for PBKDF2 with SHA-256.
func hashPassword(password string, salt []byte) []byte {
	hash, err := pbkdf2.Key(sha256.New, password, salt, 600_000, sha256.Size)
	if err != nil {
		panic(err) // only for parameters that FIPS 140 forbids
	}
	return hash
}

func (us *users) check(email, password string) (user, bool) {
	u, ok := us.byEmail[email]
	if !ok {
		u = us.nobody
	}
	same := subtle.ConstantTimeCompare(hashPassword(password, u.salt), u.hash) == 1
	return u, ok && same
}

func (us *users) roles(id int64) []string {
	for _, u := range us.byEmail {
		if u.ID == id {
			return u.Roles
		}
	}
	return nil
}
