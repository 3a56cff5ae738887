-- The role of API and workers. PostgreSQL runs this file when it creates the database. For an older volume, or to change
-- the password, run it by hand:
--   docker compose exec postgres psql --username consumers --file /docker-entrypoint-initdb.d/roles.sql consumers
\set ON_ERROR_STOP on
\getenv password POSTGRES_SERVICE_PASSWORD
SELECT 'CREATE ROLE consumers_service' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'consumers_service')
\gexec
ALTER ROLE consumers_service LOGIN PASSWORD :'password';
