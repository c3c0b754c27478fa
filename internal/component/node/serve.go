package node

import "context"

func (n *Node) serve(ctx context.Context) error { <-ctx.Done(); return nil }

func (n *Node) runStorage(ctx context.Context) error { <-ctx.Done(); return nil }
