from django.urls import path

from shop import views

urlpatterns = [path("orders/<int:pk>/", views.order), path("orders/<int:pk>/price/", views.price)]
