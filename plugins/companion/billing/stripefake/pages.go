package stripefake

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

//go:embed pages
var pageFiles embed.FS

// maxPageForm bounds what a page's form may send, in bytes.
const maxPageForm = 16 << 10

// site renders the pages that people see. They need no script, and their links
// are relative, so that they can be mounted anywhere.
type site struct {
	*Fake
	templates *template.Template
}

func (f *Fake) pageRoutes() (*http.ServeMux, error) {
	t, err := template.ParseFS(pageFiles, "pages/*.html")
	if err != nil {
		return nil, err
	}
	style, err := fs.ReadFile(pageFiles, "pages/style.css")
	if err != nil {
		return nil, err
	}
	s := &site{Fake: f, templates: t}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /pay/{id}", s.showPayment)
	mux.HandleFunc("POST /pay/{id}", s.pay)
	mux.HandleFunc("GET /thanks/{id}", s.thank)
	mux.HandleFunc("GET /portal/{token}", s.showPortal)
	mux.HandleFunc("POST /portal/{token}", s.actInPortal)
	mux.HandleFunc("GET /invoice/{token}", s.showInvoice)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("Cache-Control", "max-age=3600")
		_, _ = w.Write(style) // only a client that has left makes this fail
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.note(w, http.StatusNotFound, "Not found", "There is no such page. A link of a payment works until it was paid or its time is over.")
	})
	return mux, nil
}

// show writes a page, whole or not at all.
func (s *site) show(w http.ResponseWriter, status int, name string, data any) {
	var b bytes.Buffer
	if err := s.templates.ExecuteTemplate(&b, name, data); err != nil {
		s.options.Log.Error("a page of the billing fake cannot be shown", zap.String("page", name), zap.Error(err))
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'")
	// The address of a page is a password: it is told to nobody.
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // only a client that has left makes this fail
}

func (s *site) note(w http.ResponseWriter, status int, title, text string) {
	s.show(w, status, "note.html", struct{ Title, Text string }{title, text})
}

// form reads what a page sends; false: it was answered. The address is a secret,
// which keeps other sites from sending forms here; should one have got hold of it,
// the browser says that the form is not of this site.
func (s *site) form(w http.ResponseWriter, r *http.Request) bool {
	if from := r.Header.Get("Sec-Fetch-Site"); from != "" && from != "same-origin" && from != "none" {
		s.note(w, http.StatusForbidden, "That did not work", "The form came from another site.")
		return false
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxPageForm)
	if err := r.ParseForm(); err != nil {
		s.note(w, http.StatusBadRequest, "That did not work", "The form could not be read.")
		return false
	}
	return true
}

// redirect sends the browser on after a form. A relative target is left as it
// is: the page does not know where it is mounted.
func redirect(w http.ResponseWriter, target string) {
	w.Header().Set("Location", target)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther)
}

// shownCard is a test card as a page lists it.
type shownCard struct{ Spaced, Meaning string }

func shownCards() []shownCard {
	var out []shownCard
	for _, c := range Cards() {
		spaced := c.Number
		if len(spaced) == 16 {
			spaced = strings.Join([]string{spaced[:4], spaced[4:8], spaced[8:12], spaced[12:]}, " ")
		}
		out = append(out, shownCard{spaced, c.Meaning})
	}
	return out
}

// paymentPage is what pay.html shows.
type paymentPage struct {
	Title, ID, Product, Due, Trial, Button, Problem, State, Card string
	Lines                                                        []struct{ Text, Amount string }
	Cards                                                        []shownCard
	Open, Needed                                                 bool
	Back, Next                                                   string
}

func (s *site) showPayment(w http.ResponseWriter, r *http.Request) {
	s.paymentPage(w, r.PathValue("id"), http.StatusOK, "", "")
}

func (s *site) paymentPage(w http.ResponseWriter, id string, status int, problem, card string) {
	p := paymentPage{ID: id, Problem: problem, Card: card, Cards: shownCards()}
	err := s.either(func(m *mode) (bool, error) {
		of := m.Sessions.get(id)
		if of == nil {
			return false, nil
		}
		p.fill(m, of)
		return true, nil
	})
	if errors.Is(err, errNotFound) {
		s.note(w, http.StatusNotFound, "Not found", "There is no such payment.")
		return
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	s.show(w, status, "pay.html", p)
}

func (p *paymentPage) fill(m *mode, of *session) {
	currency := m.Prices.get(of.Lines[0].Price).Currency
	for _, x := range of.Lines {
		each := m.Prices.get(x.Price)
		name := m.Products.get(each.Product).Name
		if p.Product == "" {
			p.Product = name
		}
		text := name + ", each " + each.each()
		if x.Quantity != 1 {
			text += " × " + strconv.FormatInt(x.Quantity, 10)
		}
		p.Lines = append(p.Lines, struct{ Text, Amount string }{text, money(each.Amount*x.Quantity, currency)})
	}
	due := m.dueNow(of)
	p.Title, p.Due, p.Button, p.Back = "Subscribe to "+p.Product, money(due, currency), "Pay "+money(due, currency), of.CancelURL
	p.Needed = of.CollectAlways || due > 0
	if due == 0 {
		p.Button = "Start the trial"
		end := of.Data.TrialEnd
		if of.Data.TrialDays > 0 {
			end = m.now + of.Data.TrialDays*day
		}
		p.Trial = "until " + date(end)
	}
	switch of.Status {
	case "open":
		p.Open = true
	case "complete":
		p.State, p.Next = "This was paid. Thank you.", of.successAddress()
	default:
		p.State, p.Next = "The time to pay is over. Begin again from the application.", of.CancelURL
	}
}

func (s *site) pay(w http.ResponseWriter, r *http.Request) {
	if !s.form(w, r) {
		return
	}
	id, card := r.PathValue("id"), r.PostForm.Get("card")
	next, err := s.Pay(id, card)
	var declined *Declined
	switch {
	case err == nil:
		redirect(w, next)
	case errors.As(err, &declined):
		s.paymentPage(w, id, http.StatusPaymentRequired, declined.Message, "")
	case errors.Is(err, errNotOpen), errors.Is(err, errNotFound):
		s.paymentPage(w, id, http.StatusConflict, "", "")
	default:
		s.fail(w, err)
	}
}

// thank is where a payer goes whose application has no page for that.
func (s *site) thank(w http.ResponseWriter, r *http.Request) {
	name := ""
	err := s.either(func(m *mode) (bool, error) {
		of := m.Sessions.get(r.PathValue("id"))
		if of != nil && of.Status == "complete" {
			name = m.Products.get(m.Prices.get(of.Lines[0].Price).Product).Name
		}
		return of != nil, nil
	})
	switch {
	case err != nil && !errors.Is(err, errNotFound):
		s.fail(w, err)
	case name == "":
		s.note(w, http.StatusNotFound, "Not found", "Nothing was paid here.")
	default:
		s.note(w, http.StatusOK, "You have "+name, "The new limits are in force. You can close this page.")
	}
}

func (s *site) fail(w http.ResponseWriter, err error) {
	s.options.Log.Error("the billing fake cannot answer", zap.Error(err))
	s.note(w, http.StatusInternalServerError, "That did not work", "The books could not be kept. The log says why.")
}

func date(t int64) string { return time.Unix(t, 0).UTC().Format("2 January 2006") }
