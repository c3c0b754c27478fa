package main

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"strings"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
)

// statements are what is done to the table of tasks.
type statements struct{ insert, pick, finish string }

var (
	mysqlStatements = statements{
		insert: "INSERT INTO task_instance (state) VALUES (?)",
		pick:   "SELECT id FROM task_instance WHERE state = ? LIMIT 1",
		finish: "UPDATE task_instance SET state = ? WHERE id = ?",
	}
	postgresStatements = statements{
		insert: "INSERT INTO task_instance (state) VALUES ($1)",
		pick:   "SELECT id FROM task_instance WHERE state = $1 LIMIT 1 FOR UPDATE",
		finish: "UPDATE task_instance SET state = $1 WHERE id = $2",
	}
)

// tasks inserts rows that are work into a database, or does the work row by row and then stays.
func tasks(ctx context.Context, args []string) error {
	count, err := number("TASK_INSTANCES_COUNT", 0)
	if err != nil {
		return err
	}
	address := os.Getenv("CONNECTION_STRING")
	driver, do := "mysql", mysqlStatements
	if strings.HasPrefix(address, "postgres") {
		driver, do = "pgx", postgresStatements
	}
	db, err := sql.Open(driver, address)
	if err != nil {
		return err
	}
	switch first(args) {
	case "insert":
		for range count {
			if _, err := db.ExecContext(ctx, do.insert, "queued"); err != nil {
				return err
			}
		}
		return nil
	case "update":
		for range count {
			if err := do.work(ctx, db); err != nil {
				return err // there was no more work, or nothing could be done: the pod starts again
			}
		}
		<-ctx.Done()
		return nil
	default:
		return errors.New("expected insert or update")
	}
}

// work does one task.
func (s *statements) work(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var id int
	if err := tx.QueryRowContext(ctx, s.pick, "queued").Scan(&id); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, s.finish, "processed", id); err != nil {
		return err
	}
	return tx.Commit()
}
