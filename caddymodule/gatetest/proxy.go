package gatetest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

// Proxy stands before a server of a test and fails as networks and servers do.
type Proxy struct{ proxy *toxiproxy.Proxy }

// NewProxy starts a proxy before target that lasts as long as the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &Proxy{toxiproxy.NewProxy(server, t.Name(), "127.0.0.1:0", target)}
	p.Up(t)
	t.Cleanup(func() {
		p.Resume(t)
		p.Down()
	})
	return p
}

// Addr is the proxy's host and port, the same whether it is up or down.
func (p *Proxy) Addr() string { return p.proxy.Listen }

// Up lets clients connect, after Down.
func (p *Proxy) Up(t testing.TB) {
	t.Helper()
	if err := p.proxy.Start(); err != nil {
		t.Fatalf("starting a proxy: %v", err)
	}
}

// Down cuts every connection and refuses new ones, as a server that was killed.
func (p *Proxy) Down() { p.proxy.Stop() }

// Delay holds up whatever the server answers for d, from now on; bytes that come
// meanwhile are on their way as well. 0 ends it.
func (p *Proxy) Delay(t testing.TB, d time.Duration) {
	t.Helper()
	p.remove(t, "latency")
	if d > 0 {
		p.add(t, "latency", "downstream", fmt.Sprintf(`{"latency": %d}`, d.Milliseconds()))
	}
}

// Hang stops all bytes, and keeps them and the connections, until Resume.
func (p *Proxy) Hang(t testing.TB) {
	t.Helper()
	for _, stream := range hangs {
		p.add(t, hangType, stream, "{}")
	}
}

// Resume lets bytes pass again.
func (p *Proxy) Resume(t testing.TB) {
	t.Helper()
	for _, stream := range hangs {
		p.remove(t, hangType+"_"+stream)
	}
}

const hangType = "hang"

var hangs = [...]string{"upstream", "downstream"}

// hang is a toxic that lets nothing pass and loses nothing.
type hang struct{}

// Pipe implements toxics.Toxic.
func (hang) Pipe(stub *toxics.ToxicStub) { <-stub.Interrupt }

func init() { toxics.Register(hangType, new(hang)) }

func (p *Proxy) add(t testing.TB, toxic, stream, attributes string) {
	t.Helper()
	name := toxic
	if toxic == hangType {
		name += "_" + stream
	}
	_, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
		`{"name": %q, "type": %q, "stream": %q, "attributes": %s}`, name, toxic, stream, attributes)))
	if err != nil {
		t.Fatalf("adding the toxic %s: %v", name, err)
	}
}

func (p *Proxy) remove(t testing.TB, name string) {
	t.Helper()
	if p.proxy.Toxics.GetToxic(name) == nil {
		return
	}
	if err := p.proxy.Toxics.RemoveToxic(context.Background(), name); err != nil {
		t.Fatalf("removing the toxic %s: %v", name, err)
	}
}

// VerifyNoLeaks is goleak's for a package whose tests use proxies: connections
// that are cut while bytes are on their way leave a goroutine of the library behind.
func VerifyNoLeaks(m *testing.M) {
	const lib = "github.com/Shopify/toxiproxy/v2"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(lib+"/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction(lib+".(*ToxicLink).read"),
		goleak.IgnoreAnyFunction(lib+".(*ToxicLink).write"))
}
