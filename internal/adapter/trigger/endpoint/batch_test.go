package endpoint

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBatchJoinsQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, keys := 0, 0
		b := NewBatch(func(_ context.Context, of []int) (map[int]int, error) {
			asked++
			keys += len(of)
			time.Sleep(time.Second)
			answers := map[int]int{}
			for _, key := range of {
				answers[key] = 2 * key
			}
			return answers, nil
		})
		for n := range 100 {
			go func() {
				if got, err := b.Do(t.Context(), n%10); err != nil || got != 2*(n%10) {
					t.Errorf("Do(%d) = %d, %v; want %d", n%10, got, err, 2*(n%10))
				}
			}()
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if asked > 2 || keys > 20 {
			t.Errorf("asked %d times for %d keys; want at most 2 for 20", asked, keys)
		}
	})
}

func TestBatchGivesUpWhenAllHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := false
		b := NewBatch(func(ctx context.Context, _ []int) (map[int]int, error) {
			<-ctx.Done()
			gone = true
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Do(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do() fails with %v; want its context's end", err)
		}
		synctest.Wait()
		if !gone {
			t.Error("the question goes on though nobody waits for it")
		}
	})
}
