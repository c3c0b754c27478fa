package controller_test

import (
	"context"
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/traffic"
)

// shelf is a book with two chapters and the table it published last.
type shelf struct {
	*controller.Book
	first, second *controller.Chapter
	table         *traffic.Table
	published     int
	news          []string
}

func newShelf() *shelf {
	s := &shelf{}
	s.Book = controller.NewBook(func(t *traffic.Table) { s.table = t; s.published++ })
	hear := func(name types.NamespacedName) { s.news = append(s.news, name.Name) }
	s.first, s.second = s.Chapter(hear), s.Chapter(hear)
	return s
}

func name(n string) types.NamespacedName { return types.NamespacedName{Namespace: "shop", Name: n} }

func entry(owner, host string) controller.Entry {
	return controller.Entry{Rules: []traffic.Rule{{
		Host: host, Route: name(owner), Targets: []traffic.Target{{Revision: name(owner + "-1"), Percent: 100}},
	}}}
}

func TestTheFirstTableHoldsEveryChapter(t *testing.T) {
	s := newShelf()
	s.second.Fill(map[types.NamespacedName]controller.Entry{name("b"): entry("b", "b.example")})
	if s.published > 0 {
		t.Fatal("a table was published before every chapter was filled")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.second.Put(ctx, name("c"), entry("c", "c.example")); !errors.Is(err, context.Canceled) {
		t.Errorf("Put before that: %v, want it to wait", err)
	}
	s.first.Fill(map[types.NamespacedName]controller.Entry{name("a"): entry("a", "a.example")})
	if s.published != 1 || s.table.Hosts() != 2 {
		t.Errorf("%d tables, %d hosts; want one table with both", s.published, s.table.Hosts())
	}
}

func TestAContestedHostIsTheFirstChapters(t *testing.T) {
	s := newShelf()
	s.first.Fill(nil)
	s.second.Fill(map[types.NamespacedName]controller.Entry{name("b"): entry("b", "both.example")})
	if err := s.first.Put(t.Context(), name("z"), entry("z", "both.example")); err != nil {
		t.Errorf("the first chapter: %v", err)
	}
	if err := s.second.Put(t.Context(), name("c"), entry("c", "c.example")); err != nil {
		t.Errorf("an entry that contests nothing: %v", err)
	}
	if err := s.second.Put(t.Context(), name("d"), entry("d", "both.example")); !errors.Is(err, controller.ErrHost) {
		t.Errorf("an entry that contests: %v, want ErrHost", err)
	}
	if r, _ := s.table.Match("both.example", true); r.Route != name("z") {
		t.Errorf("the host is %s's", r.Route)
	}
	if err := s.second.Put(t.Context(), name("d"), entry("d", "both.example")); !errors.Is(err, controller.ErrHost) {
		t.Errorf("the same once more: %v, want ErrHost", err)
	}
	s.second.Drop(name("d"))
	s.news = nil
	s.first.Drop(name("z"))
	if len(s.news) != 1 || s.news[0] != "b" {
		t.Errorf("news of %v, want b's", s.news)
	}
	if r, _ := s.table.Match("both.example", true); r.Route != name("b") {
		t.Errorf("after the winner went the host is %s's", r.Route)
	}
}
