package logrotate

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// errChanged says that a file was written to while it was compressed.
var errChanged = errors.New("it was written to meanwhile")

// compress replaces the file at path by a compressed one with ".gz" behind its name. When it fails, or ctx ends, the
// file is as it was.
func compress(ctx context.Context, path string) error {
	err := compressTo(ctx, path, path+tmpSuffix)
	if err == nil {
		err = os.Rename(path+tmpSuffix, path+gzipSuffix)
	}
	if err != nil {
		_ = os.Remove(path + tmpSuffix)
		return fmt.Errorf("compressing %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing what was compressed: %w", err)
	}
	return nil
}

// compressTo is durable when it returns: the original may be removed.
func compressTo(ctx context.Context, from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	// The fastest level: it must keep pace with a flood, on CPU time that the pods could use.
	w, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	n, err := io.Copy(w, untilDone{ctx, in})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	if now, err := os.Stat(from); err != nil || now.Size() != n || !os.SameFile(now, info) {
		return errors.Join(errChanged, err)
	}
	return nil
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(b)
}
