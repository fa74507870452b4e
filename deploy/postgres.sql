-- Two databases on one server: Banyan's own, and the monolith's. They need not share a server.
create database banyan;
create database shop;
