package gatetest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// PostgresServer is a real server in a folder of its own, one for a test binary.
type PostgresServer struct {
	addr    string
	release func() // gives the port back
	cmd     *exec.Cmd
	dir     string
	log     *bytes.Buffer
	done    chan struct{}
	dbs     atomic.Int64
}

// sharedPostgres is the server of this binary, while a test uses it.
var sharedPostgres struct {
	sync.Mutex
	server *PostgresServer
	users  int
}

// Postgres lends the server of this test binary to a test and its subtests, and
// starts it for the first; the last to end stops it. Without Postgres on this
// machine the test is skipped, or fails where QUOTA_TEST_REQUIRE is 1.
func Postgres(t testing.TB) *PostgresServer {
	t.Helper()
	bin := postgresBin(t)
	s := &sharedPostgres
	s.Lock()
	defer s.Unlock()
	if s.server == nil {
		var err error
		if s.server, err = startPostgres(t.Context(), bin); err != nil {
			t.Fatalf("starting postgres: %v", err)
		}
	}
	s.users++
	server := s.server
	t.Cleanup(func() {
		s.Lock()
		defer s.Unlock()
		if s.users--; s.users == 0 {
			s.server = nil
			if err := server.stop(); err != nil {
				t.Errorf("stopping postgres: %v", err)
			}
		}
	})
	return server
}

// PostgresTool is the path of a program that comes with the server, such as
// pg_dump, under the conditions of Postgres.
func PostgresTool(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(postgresBin(t), name)
}

func postgresBin(t testing.TB) string {
	t.Helper()
	bin, err := postgresFolder()
	if err != nil {
		Missing(t, "postgres", err)
	}
	return bin
}

// postgresFolder is where the newest installed server's programs are.
func postgresFolder() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		// Behind a link is the folder with the other programs of the same version.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return "", err
		}
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", errors.New("neither in PATH nor in /usr/lib/postgresql")
	}
	slices.SortFunc(found, func(a, b string) int { return majorOf(a) - majorOf(b) })
	return filepath.Dir(found[len(found)-1]), nil
}

func majorOf(path string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	if err != nil {
		return 0
	}
	return n
}

func startPostgres(ctx context.Context, bin string) (*PostgresServer, error) {
	attr, owner, err := postgresUser()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "quotagate-postgres-")
	if err != nil {
		return nil, err
	}
	if owner >= 0 {
		if err := os.Chown(dir, owner, -1); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = attr, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w: %s", err, out), os.RemoveAll(dir))
	}
	for attempt := 1; ; attempt++ {
		s, err := runPostgres(ctx, bin, dir, data, attr)
		if err == nil {
			return s, nil
		}
		if attempt == 3 { // the port may have been taken between looking and listening
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
}

// postgresUser is how to start a server that refuses to run as root.
func postgresUser() (*syscall.SysProcAttr, int, error) {
	if os.Getuid() != 0 {
		return &syscall.SysProcAttr{}, -1, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, -1, fmt.Errorf("as root, postgres runs as the user postgres: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, -1, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, -1, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, int(uid), nil
}

func runPostgres(ctx context.Context, bin, dir, data string, attr *syscall.SysProcAttr) (*PostgresServer, error) {
	port, release, err := reservePort()
	if err != nil {
		return nil, err
	}
	s := &PostgresServer{
		addr: net.JoinHostPort("127.0.0.1", port), release: release, dir: dir, log: &bytes.Buffer{}, done: make(chan struct{}),
	}
	// Not bound to ctx: the server outlives the test that started it.
	s.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-p", port, //nolint:noctx // see above
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off")
	own := *attr
	own.Pdeathsig = syscall.SIGQUIT // a test binary that is killed leaves no server behind
	s.cmd.SysProcAttr, s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = &own, dir, s.log, s.log
	started := make(chan error, 1)
	go func() {
		// The death signal is tied to the thread that starts the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait() // its log says why it ended
			close(s.done)
		}
	}()
	if err := <-started; err != nil {
		release()
		return nil, err
	}
	return s, s.await(ctx)
}

// await waits until the server answers.
func (s *PostgresServer) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.DSN("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.done:
			return fmt.Errorf("postgres ended: %s", s.log)
		case <-ctx.Done():
			return errors.Join(err, s.stop())
		case <-retry.C:
		}
	}
}

// stop ends the server by its process and removes its folder.
func (s *PostgresServer) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.done
	s.release()
	return os.RemoveAll(s.dir)
}

// Addr is the server's host and port.
func (s *PostgresServer) Addr() string { return s.addr }

// DSN is the address of a database, as its superuser.
func (s *PostgresServer) DSN(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: s.addr, Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Database makes an empty database and returns its DSN.
func (s *PostgresServer) Database(t testing.TB) string {
	t.Helper()
	name := "test" + strconv.FormatInt(s.dbs.Add(1), 10)
	conn, err := pgx.Connect(t.Context(), s.DSN("postgres"))
	if err != nil {
		t.Fatalf("connecting to postgres: %v", err)
	}
	_, err = conn.Exec(t.Context(), "CREATE DATABASE "+name)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatalf("creating database: %v", err)
	}
	return s.DSN(name)
}

// Open makes an empty database and opens it with the given search_path.
func (s *PostgresServer) Open(t testing.TB, searchPath string) *sql.DB {
	t.Helper()
	config, err := pgx.ParseConfig(s.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["search_path"] = searchPath
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(16)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("closing database: %v", err)
		}
	})
	return db
}
