package api

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"reflect"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
)

// Format is how a list is answered. Embed it in an operation's input.
type Format struct {
	Format string `query:"format" enum:"json,csv" default:"json" doc:"csv answers a table (RFC 4180) to be kept as a file."`
}

// CSV reports whether a table was asked for.
func (f Format) CSV() bool { return f.Format == "csv" }

// Exports describes that the operation answers T as JSON, or a table. Its handler
// answers with JSON or with Table.Answer.
func Exports[T any](a huma.API, op huma.Operation) huma.Operation {
	schema := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, op.OperationID+"Response")
	op.Responses = map[string]*huma.Response{"200": {
		Description: http.StatusText(http.StatusOK),
		Content: map[string]*huma.MediaType{
			"application/json": {Schema: schema},
			contentCSV:         {Schema: &huma.Schema{Type: "string", Description: "A line of names, then a line for each row."}},
		},
	}}
	return op
}

const contentCSV = "text/csv"

// JSON answers an exporting operation with v.
func JSON(v any) (*huma.StreamResponse, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding the answer: %w", err)
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", "application/json")
		_, _ = ctx.BodyWriter().Write(append(b, '\n')) // only a client that has left makes this fail
	}}, nil
}

// Table is an answer as CSV.
type Table struct {
	Name    string // of the file, without its ending
	Columns []string
	Rows    iter.Seq[[]string]
	// Next is the cursor of the rows that follow; empty: these are the last.
	Next string
}

// nextHeader carries Table.Next.
const nextHeader = "X-Next-Cursor"

// Answer answers an exporting operation with the table.
func (t Table) Answer() *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", contentCSV+"; charset=utf-8")
		ctx.SetHeader("Content-Disposition", `attachment; filename="`+t.Name+`.csv"`)
		ctx.SetHeader("X-Content-Type-Options", "nosniff")
		if t.Next != "" {
			ctx.SetHeader(nextHeader, t.Next)
		}
		_ = t.write(ctx.BodyWriter()) // only a client that has left makes this fail
	}}
}

func (t Table) write(out io.Writer) error {
	w := csv.NewWriter(out)
	w.UseCRLF = true
	if err := w.Write(t.Columns); err != nil {
		return err
	}
	cells := make([]string, 0, len(t.Columns))
	for row := range t.Rows {
		cells = cells[:0]
		for _, cell := range row {
			cells = append(cells, harmless(cell))
		}
		if err := w.Write(cells); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// formula are the characters at which a spreadsheet begins to calculate, full-width
// ones included (OWASP, CSV injection).
const formula = "=+-@\uff1d\uff0b\uff0d\uff20"

// harmless is a cell that no spreadsheet takes for a formula: names, addresses
// and reasons are what strangers have typed.
func harmless(cell string) string {
	seen := strings.TrimLeftFunc(cell, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.Is(unicode.C, r)
	})
	if strings.IndexAny(seen, formula) == 0 || strings.IndexAny(cell, "\t\r\n") == 0 {
		return "'" + cell
	}
	return cell
}

// Slice is a table's rows of items.
func Slice[T any](items []T, row func(T) []string) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for _, item := range items {
			if !yield(row(item)) {
				return
			}
		}
	}
}
