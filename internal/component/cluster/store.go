package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"ebb.dev/ebb/internal/platform/config"
)

const (
	// socketLimit is the kernel's bound on a Unix socket's path.
	socketLimit = 107
	socketName  = "client.sock"
	// One member elects itself once its timeout passes, which a start waits for: a random time up to
	// twice electionMs. Without peers there is no reason for patience.
	tickMs      = 50
	electionMs  = 250
	defragAtMiB = 64
	// Entries of the log stay in memory until the next snapshot, for peers that lag behind; there are
	// none.
	snapshotEvery, keptAfter = 1000, 100
)

// store is etcd with one member, reached by a Unix socket that only the folder's owner can open.
type store struct {
	etcd     *embed.Etcd
	endpoint string
	dir      *os.File // held open while socket paths go through it; nil if the path was short enough
}

// startStore returns once etcd answers.
func startStore(ctx context.Context, folder config.Folder, log *slog.Logger) (*store, error) {
	dir := folder.Etcd()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making etcd folder: %w", err)
	}
	s := &store{}
	client, err := s.socket(dir)
	if err != nil {
		return nil, err
	}
	ec := embed.NewConfig()
	ec.Name = "ebb"
	ec.Dir = filepath.Join(dir, "data")
	ec.ListenClientUrls, ec.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	// One member has no peers to listen for; the address is only part of its name.
	ec.ListenPeerUrls, ec.AdvertisePeerUrls = nil, []url.URL{{Scheme: "http", Host: "localhost:2380"}}
	ec.InitialCluster = ec.Name + "=" + ec.AdvertisePeerUrls[0].String()
	ec.TickMs, ec.ElectionMs = tickMs, electionMs
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(zapBridge{ctx: context.WithoutCancel(ctx), log: log.With("component", "etcd")}))
	ec.BootstrapDefragThresholdMegabytes = defragAtMiB
	ec.SnapshotCount, ec.SnapshotCatchUpEntries = snapshotEvery, keptAfter
	if s.etcd, err = embed.StartEtcd(ec); err != nil {
		return nil, errors.Join(fmt.Errorf("starting etcd: %w", err), s.closeDir())
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
		s.endpoint = "unix://" + client.Path
		return s, nil
	case err = <-s.etcd.Err():
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.stop()
	return nil, fmt.Errorf("waiting for etcd: %w", err)
}

// socket names the socket. A data folder whose path is too long for the kernel is reached through a
// descriptor of it.
func (s *store) socket(dir string) (url.URL, error) {
	base := dir
	if len(filepath.Join(dir, socketName)) > socketLimit {
		var err error
		if s.dir, err = os.Open(dir); err != nil {
			return url.URL{}, fmt.Errorf("opening etcd folder: %w", err)
		}
		base = fmt.Sprintf("/proc/self/fd/%d", s.dir.Fd())
	}
	return url.URL{Scheme: "unix", Path: filepath.Join(base, socketName)}, nil
}

func (s *store) closeDir() error {
	if s.dir == nil {
		return nil
	}
	return s.dir.Close()
}

func (s *store) stop() {
	s.etcd.Close()
	if err := s.closeDir(); err != nil {
		s.etcd.GetLogger().Warn("closing etcd folder", zap.Error(err))
	}
}

// zapBridge writes etcd's log lines through slog.
type zapBridge struct {
	ctx    context.Context // etcd's lines carry none
	log    *slog.Logger
	fields []zapcore.Field
}

func (z zapBridge) Enabled(l zapcore.Level) bool {
	return z.log.Enabled(z.ctx, slogLevel(l))
}

func (z zapBridge) With(fields []zapcore.Field) zapcore.Core {
	return zapBridge{ctx: z.ctx, log: z.log, fields: append(slices.Clip(z.fields), fields...)}
}

func (z zapBridge) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if z.Enabled(e.Level) {
		return ce.AddCore(e, z)
	}
	return ce
}

func (z zapBridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(slices.Clip(z.fields), fields...) {
		f.AddTo(enc)
	}
	args := make([]any, 0, 2*len(enc.Fields))
	for k, v := range enc.Fields {
		args = append(args, k, v)
	}
	z.log.Log(z.ctx, slogLevel(e.Level), e.Message, args...) //nolint:sloglint // the words are etcd's
	return nil
}

func (z zapBridge) Sync() error { return nil }

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	case l == zapcore.InfoLevel:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}
